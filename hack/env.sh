# Sourced by the scripts beside it: where kubectl goes, and how manifests become what is applied.
#
# CLUSTER   local (the default): the cluster of hack/cluster; current: the kube context that is set
# REGISTRY  where the images are, if not in the cluster itself; the manifests say ghcr.io/detour-dev
# TAG       the images' tag; the default is that of the last hack/images
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${CLUSTER:=local}" "${REGISTRY:=ghcr.io/detour-dev}"
mkdir -p bin

case $CLUSTER in
local)
  PATH=$(hack/cluster/cluster bin):$PATH
  KUBECONFIG=$PWD/bin/kubeconfig
  export PATH KUBECONFIG
  hack/cluster/cluster kubeconfig >"$KUBECONFIG"
  ;;
current)
  command -v kubectl >/dev/null || { echo "CLUSTER=current needs kubectl in the PATH" >&2; exit 1; }
  ;;
*)
  echo "CLUSTER=$CLUSTER: want local or current" >&2
  exit 1
  ;;
esac

# render DIR: the kustomization with the images that were built.
render() {
  kubectl kustomize "$1" | with_images
}

# with_images: manifests in, manifests with the images that were built out. The database's image is not built from this
# tree and has no tag of its own.
with_images() {
  local tag=${TAG:-$(cat bin/tag)}
  sed -E "s#ghcr\.io/detour-dev/(webhook|router|proxy|kubectl-detour|shop):dev#$REGISTRY/\1:$tag#; s#ghcr\.io/detour-dev/#$REGISTRY/#"
}
