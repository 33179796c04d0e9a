module github.com/detour-dev/detour/test/bench

go 1.26.0

require (
	github.com/detour-dev/detour v0.0.0
	golang.org/x/sys v0.49.0
)

replace github.com/detour-dev/detour => ../..
