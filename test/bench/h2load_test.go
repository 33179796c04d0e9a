package main

import "testing"

func TestParseH2load(t *testing.T) {
	const good = "finished in 300.67ms, 4000.00 req/s, 0B/s\n" +
		"requests: 1250 total, 1328 started, 1200 done, 1200 succeeded, 0 failed, 0 errored, 0 timeout\n" +
		"status codes: 1200 2xx, 0 3xx, 0 4xx, 0 5xx\n"
	traffic, err := parseH2load([]byte(good))
	if err != nil || traffic.units != 1200 {
		t.Errorf("%g requests, error %v", traffic.units, err)
	}
	for name, out := range map[string]string{
		"nothing": "",
		"none":    "requests: 0 total, 0 started, 0 done, 0 succeeded, 0 failed, 0 errored, 0 timeout\nstatus codes: 0 2xx, 0 3xx, 0 4xx, 0 5xx",
		"failed":  "requests: 9 total, 9 started, 9 done, 8 succeeded, 1 failed, 1 errored, 0 timeout\nstatus codes: 8 2xx, 0 3xx, 0 4xx, 0 5xx",
		"404":     "requests: 9 total, 9 started, 9 done, 9 succeeded, 0 failed, 0 errored, 0 timeout\nstatus codes: 8 2xx, 0 3xx, 1 4xx, 0 5xx",
	} {
		if _, err := parseH2load([]byte(out)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
