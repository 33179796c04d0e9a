package plugin

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// maxName leaves room for what a Deployment and its ReplicaSet append ("-7d95d54895-gpsbd") in the 63 characters of a host
// name, beyond which the kubelet would cut off what tells Pods apart.
const maxName = 63 - len("-7d95d54895-gpsbd")

// previewName is "<workload>-<key>". Where that cannot be the name of a Pod's host, it is made to fit, and a digest keeps
// it apart from others that come out alike.
func previewName(workload, key string) string {
	plain := workload + "-" + key
	name := workload + "-" + strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(key))
	if name == plain && len(name) <= maxName {
		return name
	}
	digest := sha256.Sum256([]byte(plain))
	suffix := "-" + hex.EncodeToString(digest[:4])
	name = name[:min(len(name), maxName-len(suffix))]
	return strings.TrimRight(name, "-.") + suffix
}
