package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// program is one of the heavy programs, each in a folder and module of its own beside this one.
type program struct {
	name   string   // of the folder and of the binary
	names  []string // what else the binary is called
	stamp  string   // the module whose version Kubernetes' version variables are set to; empty for none
	copies string   // MODULE//FOLDER of which a copy is kept beside the binary; empty for none
}

var (
	nodeProgram = program{
		name:  "node",
		names: []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"},
		stamp: "k8s.io/kubernetes",
	}
	pauseProgram       = program{name: "pause"}
	dnsProgram         = program{name: "dns"}
	certManagerProgram = program{name: "certmanager", copies: "github.com/cert-manager/cert-manager//deploy/crds"}
)

const (
	progressEvery = 10 * time.Second
	keptBuilds    = 2 // of one program: the current one, and the one of the other branch
)

// builder makes programs out of source and keeps them in cache.
type builder struct {
	source string
	cache  string
}

// build returns the folder that holds the program's binary, after building it where that was not done yet. Of several
// callers at a time one builds and the others wait for it.
func (b builder) build(ctx context.Context, p program) (string, error) {
	flags, err := b.flags(p)
	if err != nil {
		return "", err
	}
	key, err := b.key(ctx, p, flags)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.cache, p.name+"-"+key)
	unlock, err := lock(filepath.Join(b.cache, p.name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		now := time.Now()
		return dir, os.Chtimes(dir, now, now) // prune goes by this
	}
	unfinished := filepath.Join(b.cache, p.name+".unfinished")
	if err := b.buildInto(ctx, p, flags, unfinished); err != nil {
		return "", fmt.Errorf("building %s: %w", p.name, err)
	}
	if err := os.Rename(unfinished, dir); err != nil {
		return "", fmt.Errorf("keeping the build of %s: %w", p.name, err)
	}
	return dir, prune(b.cache, p.name)
}

// flags are the arguments of go build that depend on the program.
func (b builder) flags(p program) ([]string, error) {
	ld := "-s -w"
	if p.stamp != "" {
		mod, err := os.ReadFile(filepath.Join(b.source, p.name, "go.mod"))
		if err != nil {
			return nil, fmt.Errorf("looking for the version of %s: %w", p.stamp, err)
		}
		version, err := requiredVersion(string(mod), p.stamp)
		if err != nil {
			return nil, err
		}
		ld += versionStamp(version)
	}
	return []string{"-trimpath", "-buildvcs=false", "-ldflags", ld}, nil
}

// requiredVersion is the version of module that a go.mod asks for.
func requiredVersion(mod, module string) (string, error) {
	found := regexp.MustCompile(`(?m)^\s*(?:require )?` + regexp.QuoteMeta(module) + ` (v\S+)`).FindStringSubmatch(mod)
	if found == nil {
		return "", fmt.Errorf("go.mod does not require %s", module)
	}
	return found[1], nil
}

// versionStamp are the linker's flags that tell Kubernetes' programs their version. Without them it is empty.
func versionStamp(version string) string {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	values := map[string]string{"gitVersion": version, "gitMajor": parts[0], "gitMinor": parts[1], "gitTreeState": "clean"}
	var flags strings.Builder
	for _, pkg := range []string{"k8s.io/client-go/pkg/version", "k8s.io/component-base/version"} {
		for _, name := range []string{"gitVersion", "gitMajor", "gitMinor", "gitTreeState"} {
			fmt.Fprintf(&flags, " -X %s.%s=%s", pkg, name, values[name])
		}
	}
	return flags.String()
}

// key names a build by everything that it is made from.
func (b builder) key(ctx context.Context, p program, flags []string) (string, error) {
	version, err := b.command(ctx, p, "env", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("asking go for its version: %w", err)
	}
	files, err := sources(filepath.Join(b.source, p.name))
	if err != nil {
		return "", err
	}
	return buildKey(files, append(flags, string(version), runtime.GOARCH)), nil
}

// sources are the files of a module that go into its program, by name.
func sources(dir string) (map[string][]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading sources: %w", err)
	}
	files := map[string][]byte{}
	for _, e := range entries {
		name := e.Name()
		isSource := strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
		if !isSource && name != "go.mod" && name != "go.sum" {
			continue
		}
		if files[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("reading sources: %w", err)
		}
	}
	return files, nil
}

// buildKey is the same for the same files and settings, whatever the order of the files, and for nothing else.
func buildKey(files map[string][]byte, settings []string) string {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	sum := sha256.New()
	for _, name := range names {
		fmt.Fprintf(sum, "%q %q\n", name, files[name])
	}
	fmt.Fprintf(sum, "%q\n", settings)
	return hex.EncodeToString(sum.Sum(nil))[:16]
}

func (b builder) buildInto(ctx context.Context, p program, flags []string, dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	args := slices.Concat([]string{"build", "-v", "-o", filepath.Join(dir, p.name)}, flags, []string{"."})
	if err := watched(b.command(ctx, p, args...), p.name); err != nil {
		return err
	}
	for _, name := range p.names {
		if err := os.Symlink(p.name, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if p.copies != "" {
		return b.copyFolder(ctx, p, dir)
	}
	return nil
}

// copyFolder puts a copy of a folder of one of the program's modules beside its binary.
func (b builder) copyFolder(ctx context.Context, p program, dir string) error {
	module, folder, _ := strings.Cut(p.copies, "//")
	root, err := b.command(ctx, p, "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return fmt.Errorf("looking for the files of %s: %w", module, err)
	}
	from := filepath.Join(strings.TrimSpace(string(root)), folder)
	return os.CopyFS(filepath.Join(dir, filepath.Base(folder)), os.DirFS(from))
}

// command is go, run in the program's folder for a static binary.
func (b builder) command(ctx context.Context, p program, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(b.source, p.name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	return cmd
}

// prune removes all builds of a program but the youngest.
func prune(cache, name string) error {
	dirs, err := filepath.Glob(filepath.Join(cache, name+"-*"))
	if err != nil {
		return err
	}
	used := map[string]time.Time{}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("looking for old builds: %w", err)
		}
		used[dir] = info.ModTime()
	}
	slices.SortFunc(dirs, func(x, y string) int { return used[y].Compare(used[x]) })
	for _, dir := range dirs[min(keptBuilds, len(dirs)):] {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing an old build: %w", err)
		}
	}
	return nil
}

// watched runs a go command, says every now and then how far it is, and shows what it complained of if it fails.
func watched(cmd *exec.Cmd, name string) error {
	say("building %s, once and then kept; on two cores with an empty Go cache this takes minutes", name)
	var p progress
	cmd.Stderr = &p
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for tick := time.NewTicker(progressEvery); ; {
		select {
		case err := <-done:
			tick.Stop()
			if err != nil {
				return fmt.Errorf("%w\n%s", err, p.complaints())
			}
			say("  %s: built in %s", name, time.Since(start).Round(time.Second))
			return nil
		case <-tick.C:
			say("  %s: %s, %s", name, time.Since(start).Round(time.Second), p.String())
		}
	}
}

// progress reads along what go build -v prints: the path of each package when its turn comes, each module when it is
// downloaded, and everything else.
type progress struct {
	mu         sync.Mutex
	line       []byte
	packages   int
	downloads  int
	last       string
	complained []string
}

// Write takes in the next piece of output; lines may come in pieces.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line = append(p.line, b...)
	for {
		line, rest, whole := bytes.Cut(p.line, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		p.count(string(line))
		p.line = rest
	}
}

func (p *progress) count(line string) {
	module, isDownload := strings.CutPrefix(line, "go: downloading ")
	switch {
	case isDownload:
		p.downloads++
		p.last = module
	case strings.ContainsAny(line, " \t"):
		p.complained = append(p.complained, line)
	default:
		p.packages++
		p.last = line
	}
}

// String says how far the build is.
func (p *progress) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%d modules downloaded, %d packages compiled, now %s", p.downloads, p.packages, p.last)
}

func (p *progress) complaints() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.complained, "\n")
}

// lock waits until it alone holds the lock file, and returns what gives it back.
func lock(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("making the lock's folder: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		say("waiting for another of these programs to release %s", path)
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// printBin is the command bin.
func printBin(ctx context.Context, b builder) error {
	dir, err := b.build(ctx, nodeProgram)
	if err != nil {
		return err
	}
	_, err = io.WriteString(os.Stdout, dir+"\n")
	return err
}
