# The daemon as an image for a daemon-scheduled ECS service (docs/install.md):
#
#   docker build --build-arg VERSION=$(git describe --tags --always) -t connectd .
#
# The binary is static and has the BPF programs in it, so nothing else is in
# the image but the certificates that AWS is called with. It runs on amd64 and
# arm64, in the host's network and pid namespaces, with the binds of
# docs/install.md; it says at start which of them is missing.
ARG GO_IMAGE=golang:1.26-bookworm

FROM ${GO_IMAGE} AS build
ARG VERSION=dev
ARG COMMIT=
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath \
    -ldflags "-s -w -X connectd/daemon.Version=${VERSION} -X connectd/daemon.Commit=${COMMIT}" \
    -o /out/connectd ./cmd/connectd

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/connectd /connectd
# Root, for hosts files, cgroups and Docker's socket are root's.
USER 0:0
ENTRYPOINT ["/connectd"]
CMD ["run"]
