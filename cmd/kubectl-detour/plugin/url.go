package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pkg/browser"
	"github.com/spf13/cobra"

	"github.com/detour-dev/detour/api"
)

// visit leads a browser into a Service with a key, or to the page of the namespace.
type visit struct {
	key       string
	service   string // "" is the key's only target
	dashboard bool
	share     time.Duration // 0 leaves it to the gateway
	tokenFile string
}

const urlLong = `Print the URL by which a browser enters a Service with a key, or that of the namespace's page. Where the gateway asks
for signed links it is one, which lets in whoever has it until it expires; elsewhere it is the plain URL.`

const urlExample = `  # The preview itself
  %[1]s url pr-42

  # The whole application with the preview inside, to be sent to a tester
  %[1]s url pr-42 --service frontend --share 2h

  # The page of the namespace
  %[1]s url --dashboard`

func (p *plugin) urlCommand() *cobra.Command {
	v := &visit{}
	var output string
	cmd := v.command(p, "url (KEY | --dashboard)", "Print the URL of a preview", func(ctx context.Context, s *session) error {
		if err := checkOutput(output, "json", "yaml"); err != nil {
			return err
		}
		link, err := v.link(ctx, s)
		switch {
		case err != nil:
			return err
		case output != "":
			return printObject(s.Out, output, link)
		}
		fmt.Fprintln(s.Out, link.URL)
		return nil
	})
	cmd.Long, cmd.Example = urlLong, fmt.Sprintf(urlExample, p.name)
	cmd.Flags().DurationVar(&v.share, "share", 0, "how long a signed link lasts, such as 2h; 24h without it, and 720h at most")
	cmd.Flags().StringVarP(&output, "output", "o", "", "json or yaml")
	return cmd
}

func (p *plugin) openCommand() *cobra.Command {
	v := &visit{}
	return v.command(p, "open (KEY | --dashboard)", "Open a preview in the browser", func(ctx context.Context, s *session) error {
		link, err := v.link(ctx, s)
		if err != nil {
			return err
		}
		browser.Stdout, browser.Stderr = io.Discard, s.ErrOut
		if err := browser.OpenURL(link.URL); err != nil {
			return fmt.Errorf("opening a browser: %w; %s url prints the URL", err, s.self)
		}
		return nil
	})
}

// command is what url and open have in common.
func (v *visit) command(p *plugin, use, short string, run func(context.Context, *session) error) *cobra.Command {
	cmd := &cobra.Command{
		Use:               use,
		Short:             short,
		ValidArgsFunction: p.completing(keys),
		Args: func(cmd *cobra.Command, args []string) error {
			if v.dashboard && len(args) > 0 {
				return fmt.Errorf("--dashboard is the namespace's page: leave out %q", args[0])
			}
			if v.dashboard {
				return nil
			}
			return exactly("KEY")(cmd, args)
		},
		RunE: p.verb(func(ctx context.Context, s *session, args []string) error {
			v.key = strings.Join(args, "") // one, or none with --dashboard
			return run(ctx, s)
		}),
	}
	cmd.Flags().StringVar(&v.service, "service", "", "the Service to enter; needed where the key has previews of several, or to enter elsewhere")
	cmd.Flags().BoolVar(&v.dashboard, "dashboard", false, "the page of the namespace")
	addTokenFile(cmd, &v.tokenFile)
	cmd.MarkFlagsMutuallyExclusive("dashboard", "service")
	return cmd
}

func (v *visit) link(ctx context.Context, s *session) (api.Link, error) {
	if v.share != 0 && v.share < time.Second || v.share > api.MaxLinkTime {
		return api.Link{}, usageError("--share %s: use 1s to %s", v.share, api.MaxLinkTime)
	}
	b, err := s.readBoard(ctx)
	if err != nil {
		return api.Link{}, err
	}
	switch {
	case b == nil:
		return api.Link{}, s.notTakingPart()
	case b.Gateway == "":
		return api.Link{}, fail(exitError, "previews of this cluster have no URLs: its router runs without -gateway-url; %s forward leads to one from a local port", s.self)
	case b.GatewayOpen && v.share != 0:
		s.note("note: the gateway lets everyone in, so the URL has no signature and does not expire")
	}
	return v.linkBy(ctx, s, b)
}

// linkBy asks the gateway that b names, if it needs to be asked.
func (v *visit) linkBy(ctx context.Context, s *session, b *board) (api.Link, error) {
	request, plain, err := v.request(ctx, s, b)
	if err != nil {
		return api.Link{}, err
	}
	if b.GatewayOpen {
		return api.Link{URL: plain}, nil
	}
	return v.signed(ctx, s, b.Gateway, request, plain)
}

// request is what to ask the gateway for, and the URL without a signature.
func (v *visit) request(ctx context.Context, s *session, b *board) (api.LinkRequest, string, error) {
	request := api.LinkRequest{Namespace: s.namespace, Seconds: int64(v.share / time.Second)}
	if v.dashboard {
		return request, api.GatewayURL(b.Gateway) + api.PathNamespaces + s.namespace, nil
	}
	key := b.keyOf(v.key)
	if len(b.previews(key)) == 0 {
		return request, "", s.noPreview(v.key)
	}
	if v.service == "" {
		only, err := s.onlyTarget(b, key)
		if err != nil {
			return request, "", err
		}
		v.service = only
	}
	if _, _, err := s.service(ctx, v.service); err != nil {
		return request, "", err
	}
	request.Key, request.Service = v.key, v.service
	return request, api.PreviewURL(b.Gateway, api.HostName{Key: v.key, Service: v.service, Namespace: s.namespace}), nil
}

// signed asks for a link. It may only lead where it was asked to.
func (v *visit) signed(ctx context.Context, s *session, gateway string, request api.LinkRequest, plain string) (api.Link, error) {
	token, err := s.linksToken(ctx, v.tokenFile)
	if err != nil {
		return api.Link{}, err
	}
	link, err := askGateway(ctx, gateway, token, request)
	var why *refusal
	switch {
	case errors.As(err, &why) && why.reason == "forbidden" && v.tokenFile == "":
		return api.Link{}, fmt.Errorf("%w; %s", err, s.howToLink())
	case err != nil:
		return api.Link{}, err
	case link.URL != plain && !strings.HasPrefix(link.URL, plain+"?"):
		return api.Link{}, fmt.Errorf("the gateway gives a link to %.200q, and was asked for one to %s", link.URL, plain)
	}
	return link, nil
}

// keyOf is a key, or that of the preview whose commit is given in its place.
func (b *board) keyOf(key string) string {
	if len(b.previews(key)) > 0 {
		return key
	}
	for _, preview := range b.Previews {
		if preview.Runs(key) {
			return preview.Key
		}
	}
	return key
}

// urlOf is where a browser meets a preview; "" where previews have no URLs, and for one that gets no requests.
func (b *board) urlOf(preview api.PreviewStatus) string {
	if b.Gateway == "" || !preview.State.GetsRequests() {
		return ""
	}
	return api.PreviewURL(b.Gateway, api.HostName{Key: preview.Key, Service: preview.Target, Namespace: b.namespace})
}

// onlyURL is where a browser meets the previews of a key; "" where they are of several Services.
func (b *board) onlyURL(key string) string {
	if len(b.targets(key)) != 1 {
		return ""
	}
	for _, preview := range b.previews(key) {
		if url := b.urlOf(preview); url != "" {
			return url
		}
	}
	return ""
}
