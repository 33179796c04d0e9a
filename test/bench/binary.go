package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// binary measures the proxy's file, which is to be static and stripped; haproxy's is neither small nor alone.
func (b *bench) binary(_ context.Context, c benchCase) ([]result, error) {
	if err := checkStatic(b.options.proxy); err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for name, file := range map[string]string{ours: b.options.proxy, haproxy: haproxy, nginx: nginx, nethttp: b.program("reverseproxy")} {
		path, err := exec.LookPath(file)
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		values[name] = float64(info.Size()) / 1e6
	}
	return []result{c.goals[0].value(values)}, nil
}

func checkStatic(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is not static", path)
		}
	}
	if symbols, err := f.Symbols(); !errors.Is(err, elf.ErrNoSymbols) {
		return fmt.Errorf("%s is not stripped: it has %d symbols", path, len(symbols))
	}
	return nil
}
