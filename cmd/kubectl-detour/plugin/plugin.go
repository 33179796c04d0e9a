// Package plugin is kubectl's plugin: it makes previews, waits until requests reach them, leads there from a local port or
// by URL, removes them, has namespaces take part, says what is wrong, and takes Detour out of a cluster.
//
// # Use
//
//	os.Exit(plugin.Run(ctx, plugin.Name, os.Args[1:], streams))
//
// Each verb is a file and goes one way: arguments become a value, the value runs in a [session]. The answer is on stdout;
// progress, notes and errors are on stderr. What a preview consists of, [previewOf], and what to make of its state,
// [verdictOn], are pure functions; so is what is wrong with a namespace, [diagnose].
//
// # What it does not do
//
// It routes nothing and knows nothing of proxies: it makes what anyone could make with kubectl, and reads the status that
// the router and the webhook keep in the namespace. A developer's rights in one namespace are enough for all but enabling,
// disabling and uninstalling; manifests/roles has them.
package plugin

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Name is how the plugin is called, and what it calls itself in help and errors.
const Name = "kubectl detour"

// manager is the field manager of what the plugin writes, and marks what it made.
const manager = "kubectl-detour"

const long = `Make previews of services, wait until requests reach them, and remove them.

A preview is a copy of one service that runs beside it. Requests that carry its key in the header
Detour-Key reach the copy, all others the service as ever.

Exit codes:
  0  done
  1  an error that none of the following is
  2  the arguments are wrong
  3  there is no such service, workload, preview or namespace
  4  it took longer than --timeout
  5  the preview cannot be routed as it is: its Pods do not start, or it is invalid, expired or in
     conflict
  6  doctor has found errors or warnings`

// plugin is one call of the program.
type plugin struct {
	name    string
	streams genericiooptions.IOStreams
	flags   *genericclioptions.ConfigFlags
	running bool // the arguments were right
}

// Run does what the arguments say and returns the program's exit code.
func Run(ctx context.Context, name string, args []string, streams genericiooptions.IOStreams) int {
	p := &plugin{name: name, streams: streams, flags: genericclioptions.NewConfigFlags(true)}
	root := p.command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && !p.running {
		err = usageError("%w (see '%s --help')", err, name)
	}
	if err != nil {
		fmt.Fprintf(streams.ErrOut, "error: %v\n", err)
	}
	return exitCode(err)
}

func (p *plugin) command() *cobra.Command {
	root := &cobra.Command{
		Use:           manager,
		Short:         "Previews of services in a cluster that runs all the others",
		Long:          long,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: p.name},
		SilenceUsage:  true,
		SilenceErrors: true,
		// kubectl completes its plugins itself: see cmd/kubectl-detour/kubectl_complete-detour.
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetIn(p.streams.In)
	root.SetOut(p.streams.Out)
	root.SetErr(p.streams.ErrOut)
	p.flags.AddFlags(root.PersistentFlags())
	root.AddCommand(p.verbs()...)
	return root
}

func (p *plugin) verbs() []*cobra.Command {
	return []*cobra.Command{
		p.createCommand(), p.listCommand(), p.statusCommand(), p.waitCommand(), p.forwardCommand(), p.urlCommand(), p.openCommand(),
		p.deleteCommand(), p.gcCommand(), p.enableCommand(), p.disableCommand(), p.doctorCommand(), p.uninstallCommand(), p.versionCommand(),
	}
}

// session is what a verb runs in.
type session struct {
	genericiooptions.IOStreams
	self      string // how the plugin was called
	namespace string
	config    *rest.Config
	kube      kubernetes.Interface
	dynamic   dynamic.Interface
}

// verb makes a command's function of one that needs a session.
func (p *plugin) verb(run func(ctx context.Context, s *session, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		p.running = true
		s, err := p.connect()
		if err != nil {
			return err
		}
		return run(cmd.Context(), s, args)
	}
}

// exactly one argument, which the help calls what.
func exactly(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s takes one argument, %s, and got %d", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

func (p *plugin) connect() (*session, error) {
	namespace, _, err := p.flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	config, err := p.flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	s := &session{IOStreams: p.streams, self: p.name, namespace: namespace, config: config}
	config.QPS, config.Burst = 50, 300        // as kubectl itself
	config.WarningHandler = rest.NoWarnings{} // they are about manifests, which here are not the user's
	if s.kube, err = kubernetes.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("reaching the cluster: %w", err)
	}
	if s.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("reaching the cluster: %w", err)
	}
	return s, nil
}

// note tells the user what is not the answer.
func (s *session) note(format string, args ...any) {
	fmt.Fprintf(s.ErrOut, format+"\n", args...)
}
