package plugin

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// system is the namespace that the manifests install Detour into.
const system = "detour-system"

// configuration is the name of both webhook configurations.
const configuration = "detour"

// envProxyImage is how the manifests tell the webhook which image the sidecar has.
const envProxyImage = "PROXY_IMAGE"

// versions is what version prints.
type versions struct {
	Client  string `json:"client"`
	Webhook string `json:"webhook,omitempty"`
	Router  string `json:"router,omitempty"`
	Proxy   string `json:"proxy,omitempty"`
}

func (p *plugin) versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of the plugin, and the images of Detour in the cluster",
		Args:  cobra.NoArgs,
		RunE: p.verb(func(ctx context.Context, s *session, _ []string) error {
			if err := checkOutput(output, "json", "yaml"); err != nil {
				return err
			}
			return s.printVersions(ctx, output)
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json or yaml")
	return cmd
}

func (s *session) printVersions(ctx context.Context, output string) error {
	v := versions{Client: clientVersion()}
	if err := s.readImages(ctx, &v); err != nil {
		s.note("What runs in the cluster is not to be had: %v", err)
	}
	if output != "" {
		return printObject(s.Out, output, v)
	}
	for _, row := range [][2]string{{"client", v.Client}, {"webhook", v.Webhook}, {"router", v.Router}, {"proxy", v.Proxy}} {
		if row[1] != "" {
			fmt.Fprintf(s.Out, "%-8s %s\n", row[0], row[1])
		}
	}
	return nil
}

// readImages asks the Deployments of the programs, which developers often may not read.
func (s *session) readImages(ctx context.Context, v *versions) error {
	for name, image := range map[string]*string{"detour-webhook": &v.Webhook, "detour-router": &v.Router} {
		deployment, err := s.kube.AppsV1().Deployments(system).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		*image = imageOf(deployment)
		if proxy := proxyImageOf(deployment); proxy != "" {
			v.Proxy = proxy
		}
	}
	return nil
}

func imageOf(deployment *appsv1.Deployment) string {
	return deployment.Spec.Template.Spec.Containers[0].Image
}

// proxyImageOf is what the webhook gives to Pods.
func proxyImageOf(deployment *appsv1.Deployment) string {
	for _, env := range deployment.Spec.Template.Spec.Containers[0].Env {
		if env.Name == envProxyImage {
			return env.Value
		}
	}
	return ""
}

// clientVersion is the module's, or the commit's for who builds from a checkout.
func clientVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && info.Main.Version == "(devel)" {
			return setting.Value
		}
	}
	return info.Main.Version
}
