module github.com/detour-dev/detour/hack/cluster/pause

go 1.26
