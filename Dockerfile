# For those who have a container engine; hack/images builds the same without one.
#
#   docker build --target webhook -t REGISTRY/webhook:TAG .      (and router, proxy, kubectl-detour)
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /out/ ./cmd/router ./cmd/webhook ./cmd/kubectl-detour && hack/proxy /out/proxy

FROM scratch AS proxy
COPY --from=build /out/proxy /proxy
USER 65532:65532
ENTRYPOINT ["/proxy"]

FROM scratch AS router
COPY --from=build /out/router /router
USER 65532:65532
ENTRYPOINT ["/router"]

FROM scratch AS webhook
COPY --from=build /out/webhook /webhook
USER 65532:65532
ENTRYPOINT ["/webhook"]

# The plugin, for manifests/gc.
FROM scratch AS kubectl-detour
COPY --from=build /out/kubectl-detour /kubectl-detour
USER 65532:65532
ENTRYPOINT ["/kubectl-detour"]

# The demo shop.
FROM build AS build-shop
RUN CGO_ENABLED=0 go -C hack/shop build -trimpath -ldflags='-s -w' -o /out/shop .

FROM scratch AS shop
COPY --from=build-shop /out/shop /shop
USER 65532:65532
ENTRYPOINT ["/shop"]

FROM debian:12-slim AS shop-redis
RUN apt-get update && apt-get install -y --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/*
USER 65532:65532
ENTRYPOINT ["/usr/bin/redis-server"]
