package main

import "path/filepath"

// component is one of the node's programs.
type component struct {
	name string
	path string // a path, or a name to look for in searchPath
	args []string
	// needsAPI says to start it only once the API server is ready: some give up, others wait ever longer between tries.
	needsAPI bool
}

// components are the node's programs, in the order of their start, given the folder of those that are built here.
func components(programs string) []component {
	pki := func(name string) string { return filepath.Join(stateDir, "pki", name) }
	own := func(name string) string { return filepath.Join(programs, name) }
	return []component{
		{name: "etcd", path: own("etcd"), args: []string{
			"--data-dir=" + stateDir + "/etcd",
			"--listen-client-urls=http://127.0.0.1:2379",
			"--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380",
			"--unsafe-no-fsync", // what a crash loses, down would have thrown away
		}},
		{name: "containerd", path: "containerd", args: []string{"--config=" + stateDir + "/containerd.toml"}},
		{name: "kube-apiserver", path: own("kube-apiserver"), args: []string{
			"--etcd-servers=http://127.0.0.1:2379",
			"--advertise-address=" + nodeAddress,
			"--secure-port=" + apiPort,
			"--service-cluster-ip-range=" + serviceCIDR,
			"--allow-privileged=true",
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			"--client-ca-file=" + pki("ca.crt"),
			"--tls-cert-file=" + pki("apiserver.crt"),
			"--tls-private-key-file=" + pki("apiserver.key"),
			"--kubelet-client-certificate=" + pki("to-kubelet.crt"),
			"--kubelet-client-key=" + pki("to-kubelet.key"),
			"--kubelet-preferred-address-types=InternalIP", // nobody knows the node's name
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + pki("service-accounts.key"),
			"--service-account-signing-key-file=" + pki("service-accounts.key"),
		}},
		{name: "kube-controller-manager", path: own("kube-controller-manager"), needsAPI: true, args: []string{
			"--kubeconfig=" + kubeconfigPath("kube-controller-manager"),
			"--leader-elect=false",
			"--use-service-account-credentials=true",
			"--root-ca-file=" + pki("ca.crt"),
			"--service-account-private-key-file=" + pki("service-accounts.key"),
			"--cluster-signing-cert-file=" + pki("ca.crt"),
			"--cluster-signing-key-file=" + pki("ca.key"),
		}},
		{name: "kube-scheduler", path: own("kube-scheduler"), needsAPI: true, args: []string{
			"--kubeconfig=" + kubeconfigPath("kube-scheduler"),
			"--leader-elect=false",
		}},
		{name: "kubelet", path: own("kubelet"), needsAPI: true, args: []string{
			"--config=" + stateDir + "/kubelet.yaml",
			"--kubeconfig=" + kubeconfigPath("kubelet"),
			"--hostname-override=" + nodeName,
			"--node-ip=" + nodeAddress,
		}},
		{name: "kube-proxy", path: own("kube-proxy"), needsAPI: true, args: []string{
			"--kubeconfig=" + kubeconfigPath("kube-proxy"),
			"--hostname-override=" + nodeName,
			"--proxy-mode=nftables",
			"--cluster-cidr=" + podCIDR,
			"--conntrack-max-per-core=0", // the limit is the whole machine's, not to be changed from here
		}},
	}
}
