#!/usr/bin/env bash
# Installs what a task of this repository needs, by Debian package name.
#
#   scripts/provision.sh build|test|demo|generate|kernels|bench|lint|vagrant...
#
# It says what it installs and why, does nothing when all is there, and leaves
# no service running or enabled that it installed.
set -euo pipefail
cd "$(dirname "$0")/.."

# packages MODE prints "package reason" lines.
packages() {
    case $1 in
    build) ;;
    test) cat <<-'EOF'
		gcc the race detector needs cgo
		libc6-dev the race detector needs cgo
		iproute2 tests and people look into namespaces with ip
		procps tests run ps and sysctl
		dnsutils DNS tests ask with dig
		curl HTTP tests ask with curl
		wget a documented health check asks with wget
		systemd systemd-analyze reads the unit, and starts nothing
		busybox-static DNS tests resolve as busybox does
		musl-tools DNS tests resolve as musl does
		docker.io tests of ECS run a dockerd of their own, with containerd and runc
		iptables dockerd publishes ports by it
		nginx is a server of HTTP tests and a proxy before the forwarder
		wrk is a client of HTTP tests
		nghttp2-client h2load is a client of HTTP/2 tests
		shellcheck the scripts are linted
		awscli AWS of the tests is checked against a client that is not the SDK
		make everything starts with make
		ca-certificates Go downloads modules over TLS
		EOF
        ;;
    demo) cat <<-'EOF'
		make everything starts with make
		ca-certificates Go downloads modules over TLS
		iproute2 the demo's programs run under ip netns exec
		procps the demo lists processes
		curl a client of the demo
		nginx a server of the demo
		redis-server a server of the demo
		redis-tools a client of the demo
		dnsutils the demo resolves names with dig
		busybox-static busybox nslookup is a client of the demo
		docker.io the demo of ECS runs a dockerd of its own, with containerd and runc
		iptables dockerd publishes ports by it
		EOF
        ;;
    generate) cat <<-'EOF'
		clang-19 compiles the BPF programs
		llvm-19 strips and disassembles the BPF objects
		libbpf-dev headers of the BPF helpers
		linux-libc-dev headers of the kernel's user API
		EOF
        ;;
    kernels) cat <<-'EOF'
		qemu-system-x86 runs the kernels
		busybox-static is the user space of the virtual machine
		cpio packs its initramfs
		kmod finds the modules that a module needs
		xz-utils unpacks modules
		debian-archive-keyring verifies the kernel packages
		EOF
        ;;
    bench) cat <<-'EOF'
		iproute2 the benchmark makes namespaces with ip
		procps the benchmark sets sysctls
		nginx serves what proxies are measured by
		haproxy is what the forwarder is measured against
		nghttp2-client h2load makes the load over HTTP/2
		EOF
        ;;
    lint) echo "shellcheck the scripts are linted" ;;
    vagrant)
        packages test
        packages demo
        packages generate
        packages kernels
        packages bench
        ;;
    *)
        echo "provision.sh: unknown mode '$1'" >&2
        sed -n 's/^#   \(.*\)/usage: \1/p' "$0" >&2
        exit 2
        ;;
    esac
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# as_root runs a command as root, through sudo where there is one.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian starts a service when its package is installed. invoke-rc.d asks this
# file first, and 101 is "forbidden by policy".
policy=/usr/sbin/policy-rc.d
forbid_services() {
    [ -e $policy ] && return
    trap 'as_root rm -f $policy' EXIT
    as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy"
}

# apt installs packages; a list of packages that was never read is read first,
# and one that has become too old is read again.
apt() {
    local get=(as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o "DPkg::Lock::Timeout=300")
    "${get[@]}" install -y --no-install-recommends "$@" && return
    "${get[@]}" update
    "${get[@]}" install -y --no-install-recommends "$@"
}

install_missing() {
    local missing=() package reason
    while read -r package reason; do
        installed "$package" && continue
        [[ " ${missing[*]} " == *" $package "* ]] && continue
        echo "provision: installing $package: $reason"
        missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    forbid_services
    apt "${missing[@]}"
    command -v systemctl >/dev/null || return 0
    local services
    for package in "${missing[@]}"; do
        case $package in
        nginx | haproxy | redis-server) services=("$package") ;;
        docker.io) services=(docker.service docker.socket containerd.service) ;;
        *) continue ;;
        esac
        as_root systemctl disable --quiet "${services[@]}" || true
    done
}

# Debian 12's own Go is 1.19. Its backports have a later one, and from 1.21 on Go
# fetches the version that go.mod names as a module, checksum and all
# (GOTOOLCHAIN=auto, its default).
install_go() {
    go_works && return
    local suite source=/etc/apt/sources.list.d/backports.list mirror
    # shellcheck source=/dev/null
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME-backports")
    # shellcheck disable=SC2016 # apt's own variables
    if ! apt-get indextargets --format '$(RELEASE)' | grep -qx "$suite"; then
        # shellcheck disable=SC2016
        mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
            awk -v r="${suite%-backports}" '$1 == r { print $2; exit }')
        as_root sh -c "echo 'deb $mirror $suite main' >$source"
        as_root apt-get -q update
    fi
    echo "provision: installing golang-go from $suite: it fetches the Go that go.mod asks for"
    apt -t "$suite" golang-go
    check_go
}

# go_works: asking for the module makes go compare itself with go.mod.
go_works() { command -v go >/dev/null && go list -m >/dev/null 2>&1; }

check_go() {
    go_works && return
    local want
    want=$(awk '$1 == "go" { print $2 }' go.mod)
    echo "provision: this needs Go $want or newer, found: $(command -v go >/dev/null && go version || echo none)" >&2
    echo "provision: install it, or any Go from 1.21 on without GOTOOLCHAIN=local," >&2
    echo "provision: or run 'scripts/provision.sh vagrant', which takes one from Debian's backports" >&2
    exit 1
}

[ $# -gt 0 ] || set -- help
for mode; do
    wanted=$(packages "$mode")
    if [ -n "$wanted" ]; then
        if ! command -v apt-get >/dev/null; then
            echo "provision: no apt-get here; install the like of:" >&2
            echo "$wanted" >&2
            exit 1
        fi
        install_missing <<<"$wanted"
    fi
    if [ "$mode" = vagrant ]; then install_go; else check_go; fi
done
