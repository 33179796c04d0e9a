# CLUSTER=local (the default) is the cluster of hack/cluster, CLUSTER=current the kube context that is set.
# With REGISTRY and TAG images come from there instead of being built (see README, 'In a cluster of your own').
export CLUSTER REGISTRY TAG
CLUSTER ?= local

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit integration e2e lossless bench soak cluster images deploy undeploy down

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Show it: cluster, Detour, the demo shop, a preview, a request each way
	hack/demo

test: ## Everything that must pass
	hack/test

lint: ## gofmt, go vet and staticcheck
	hack/lint

unit: ## Tests of the programs alone
	go test ./...
	go -C hack/image test ./...
	go -C hack/shop test ./...
	go -C hack/cluster test ./...
	go -C test/bench test ./...
	go -C test/lossless test ./...

integration: ## Tests against a real API server and etcd
	KUBEBUILDER_ASSETS=$$(hack/cluster/cluster bin) go test -count=1 -tags=integration ./test/integration

e2e: ## Tests on a whole cluster, which is left running
	hack/e2e

lossless: ## On, changed, broken, off and removed under a million requests, none of them lost (three quarters of an hour)
	hack/lossless long

bench: ## Measure the proxy beside haproxy, nginx and net/http
	hack/bench

soak: ## A million connections through the proxy, and what is left of them (a quarter of an hour)
	DETOUR_SOAK_CONNECTIONS=1000000 hack/conformance -test.v -test.run=TestLeaks -test.timeout=3h

cluster: ## Bring the local cluster up
	hack/cluster/cluster up

images: ## Build the images and load them into the cluster
	hack/images

deploy: ## Install Detour into the cluster
	hack/deploy

undeploy: ## Put everything back and remove Detour from the cluster
	hack/undeploy

down: ## Remove the local cluster
	hack/cluster/cluster down
