package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
)

// config says which copy of which service this process is.
type config struct {
	Service  string // frontend, api or identity
	Version  string // VERSION: named in every answer; "baseline" if empty
	Pod      string // named in every answer: the host's name, which is the Pod's
	Listen   string // LISTEN: ":8080" if empty
	API      string // API_ADDR: host and port that frontend asks; "api:80" if empty
	Identity string // IDENTITY_ADDR: host and port that api asks; "identity:80" if empty
	DB       string // DB_ADDR: host and port of the Redis that api counts in; "db:6379" if empty
	Banner   string // BANNER: what api announces; nothing if empty
}

// configFrom reads the command line and the environment.
func configFrom(args []string, getenv func(string) string) (config, error) {
	if len(args) != 1 {
		return config{}, errors.New("usage: shop frontend|api|identity")
	}
	pod, err := os.Hostname()
	if err != nil {
		return config{}, fmt.Errorf("reading the host's name: %w", err)
	}
	return config{
		Service:  args[0],
		Version:  cmp.Or(getenv("VERSION"), "baseline"),
		Pod:      pod,
		Listen:   cmp.Or(getenv("LISTEN"), ":8080"),
		API:      cmp.Or(getenv("API_ADDR"), "api:80"),
		Identity: cmp.Or(getenv("IDENTITY_ADDR"), "identity:80"),
		DB:       cmp.Or(getenv("DB_ADDR"), "db:6379"),
		Banner:   getenv("BANNER"),
	}, nil
}
