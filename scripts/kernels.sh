#!/usr/bin/env bash
# Runs the kernel tests on Debian's 5.10, 6.1 and 6.12 kernels under qemu.
#
#   scripts/kernels.sh [package...]        default: ./pkg/datapath ./pkg/testutil
#
# Environment: KERNELS="5.10 6.1 6.12" which ones; TESTFLAGS more flags for the
# test binaries, such as -test.run=Connect; CONNECTD_KERNELS_CACHE the folder
# that keeps the kernels (remove it to fetch newer ones).
#
# A virtual machine is a kernel and an initramfs: busybox, the test binaries,
# the modules they need. It has no disk and no network. Console and test output
# go to one serial port each, into log files that are kept.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${CONNECTD_KERNELS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/connectd-kernels}
read -ra kernels <<<"${KERNELS:-5.10 6.1 6.12}"
modules=(ipv6 veth bridge dummy inet_diag tcp_diag udp_diag)
vm_timeout=1200 # seconds for one virtual machine; without KVM a minute is usual
[ $# -gt 0 ] || set -- ./pkg/datapath ./pkg/testutil

suite_of() {
    case $1 in
    5.10) echo bullseye ;;
    6.1) echo bookworm ;;
    6.12) echo bookworm-backports ;;
    *) echo "kernels: no Debian suite known for Linux $1" >&2 && return 1 ;;
    esac
}

# mirror LABEL prints the address that this machine's apt has for Debian's
# archive (Debian) or its security archive (Debian-Security).
mirror() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' |
        awk -v l="$1" '$1 == l { print $2; exit }'
}

# apt_in ROOT COMMAND... runs an apt command on lists and a cache of its own, so
# that the machine's sources stay as they are.
apt_in() {
    local root=$1 command=$2
    shift 2
    "$command" -q -o "Dir::Etc::SourceList=$root/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o "Dir::State=$root/state" -o "Dir::State::status=$root/status" -o "Dir::Cache=$root/cache" \
        -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Sandbox::User=root \
        -o APT::Update::Post-Invoke= -o Acquire::Languages=none "$@"
}

# fetch VERSION leaves the kernel's package unpacked in $cache/VERSION.
fetch() {
    local version=$1 suite root package dir=$cache/$1
    [ -e "$dir/complete" ] && return
    suite=$(suite_of "$version")
    root=$cache/apt-$suite
    rm -rf "$dir" "$root"
    mkdir -p "$dir" "$root/state/lists/partial" "$root/cache/archives/partial"
    : >"$root/status"
    [ -n "$(mirror Debian)" ] || apt-get -q update
    local option='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
    echo "deb $option $(mirror Debian) $suite main" >"$root/sources.list"
    # A suite that has left support lives on in the security archive alone.
    if [ "$suite" = bullseye ] && [ -n "$(mirror Debian-Security)" ]; then
        echo "deb $option $(mirror Debian-Security) $suite-security main" >>"$root/sources.list"
    fi
    apt_in "$root" apt-get update # an unreachable suite is a warning; what matters comes next
    package=$(apt_in "$root" apt-cache depends linux-image-cloud-amd64 |
        awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }')
    [[ $package == "linux-image-$version."* ]] ||
        { echo "kernels: $suite has no cloud kernel $version (found: ${package:-none})" >&2 && return 1; }
    (cd "$dir" && apt_in "$root" apt-get download "$package")
    dpkg-deb -x "$dir"/*.deb "$dir"
    rm "$dir"/*.deb
    depmod -b "$(base_of "$dir")" "$(release_of "$dir")"
    touch "$dir/complete"
}

# release_of DIR prints the release (uname -r) of an unpacked kernel.
release_of() { basename "$1"/boot/vmlinuz-* | sed 's/^vmlinuz-//'; }

# base_of DIR prints the folder that has lib/modules in it.
base_of() { if [ -d "$1/usr/lib/modules" ]; then echo "$1/usr"; else echo "$1"; fi; }

# pack DIR FILE makes an initramfs.
pack() { (cd "$1" && find . -print0 | cpio --quiet --null -o -H newc) >"$2"; }

# common makes the part of the initramfs that all kernels share.
common() {
    local root=$1 package name
    shift
    mkdir -p "$root"/{bin,dev,etc,proc,sys,run,tmp,root,tests}
    chmod 1777 "$root/tmp"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for name in $("$root/bin/busybox" --list); do
        [ "$name" = busybox ] || ln -s busybox "$root/bin/$name"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
    echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"
    install -m 755 scripts/kernels-init.sh "$root/init"
    for package; do
        name=$(label "$package")
        mkdir "$root/tests/$name"
        CGO_ENABLED=0 go test -c -trimpath -o "$root/tests/$name/test" "$package"
        # No test files, no binary; the row then says that no test ran.
        [ ! -d "$package/testdata" ] || cp -r "$package/testdata" "$root/tests/$name/"
    done
    echo "${TESTFLAGS:-}" >"$root/tests/flags"
}

label() { echo "$1" | sed 's,^\./,,; s,/,_,g'; }

# kernel_part makes the part with the modules of one kernel, in load order.
kernel_part() {
    local dir=$1 root=$2 base release module path
    base=$(base_of "$dir")
    release=$(release_of "$dir")
    mkdir -p "$root/modules"
    for module in "${modules[@]}"; do
        modprobe -d "$base" -S "$release" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r path; do
        if [[ $path == *.xz ]]; then
            xz -dc "$path" >"$root/modules/$(basename "$path" .xz)"
        else
            cp "$path" "$root/modules/"
        fi
        basename "$path" .xz >>"$root/modules/order"
    done
}

# boot VERSION runs one virtual machine until it switches itself off.
boot() {
    local version=$1 dir=$cache/$1 logs=$2 accel=(-accel tcg -cpu 'max,-cx16')
    # qemu 7.2's emulation of cmpxchg16b spoils the flags, which makes Linux 6.12
    # crash in its allocator; without it the kernel takes another way.
    # Some clouds show a /dev/kvm without the processor's help, on which a
    # kernel stops at the first instruction that KVM cannot emulate.
    if [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then accel=(-accel kvm -cpu host); fi
    # Killing this script kills the machine too, and no machine holds the lock.
    setpriv --pdeathsig TERM timeout --foreground "$vm_timeout" qemu-system-x86_64 "${accel[@]}" -m 2048 -smp 2 \
        -kernel "$dir"/boot/vmlinuz-* -initrd "$work/$version.cpio" \
        -append "console=ttyS0 panic=-1 quiet" -no-reboot -display none -monitor none -nic none \
        -serial "file:$logs/$version.console.log" -serial "file:$logs/$version.tests.log" </dev/null 9>&-
}

# report VERSION PACKAGE LOG prints a row; it fails when the row does.
report() {
    local version=$1 package=$2 log=$3 name part ran failed skipped status seconds result=pass
    name=$(label "$package")
    part=$(tr -d '\r' <"$log" 2>/dev/null | sed -n "/^### begin $name\$/,/^### end $name /p")
    read -r status seconds <<<"$(sed -n "s/^### end $name //p" <<<"$part")" || true
    ran=$(grep -c '^=== RUN' <<<"$part" || true)
    failed=$(grep -c '^ *--- FAIL' <<<"$part" || true)
    skipped=$(grep -c '^ *--- SKIP' <<<"$part" || true)
    if [ -z "${status:-}" ]; then
        result="FAIL: did not end"
    elif [ "$status" != 0 ] || [ "$failed" != 0 ]; then
        result=FAIL
    elif [ "$ran" = 0 ]; then
        result="FAIL: no tests"
    fi
    printf '%-7s %-20s %6s %7s %8s %5ss  %s\n' "$version" "$package" "$ran" "$failed" "$skipped" "${seconds:--}" "$result"
    [ "$result" = pass ]
}

scripts/provision.sh kernels
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
logs=$cache/logs
mkdir -p "$logs"
exec 9>"$cache/lock"
# Two runs at once would share logs and half-fetched kernels.
flock --nonblock 9 || { echo "kernels: waiting for another run" && flock 9; }

mkdir "$work/common"
common "$work/common" "$@"
pack "$work/common" "$work/common.cpio"

table=() failures=0
for version in "${kernels[@]}"; do
    rm -f "$logs/$version".*.log
    if fetch "$version" >"$logs/$version.fetch.log" 2>&1; then
        mkdir "$work/$version"
        kernel_part "$cache/$version" "$work/$version"
        pack "$work/$version" "$work/$version.modules.cpio"
        cat "$work/common.cpio" "$work/$version.modules.cpio" >"$work/$version.cpio"
        start=$SECONDS
        echo "kernels: booting $(release_of "$cache/$version")"
        # Emulated processors sometimes lose a kernel while it boots (it patches
        # its own code). Only a machine that ran none of our code is tried again.
        for try in 1 2 3; do
            boot "$version" "$logs" || echo "kernels: qemu ended with status $?, see $logs/$version.console.log"
            grep -q '^### begin' "$logs/$version.tests.log" 2>/dev/null && break
            echo "kernels: $version did not come up, try $try of 3; the console ends:"
            tail -n 3 "$logs/$version.console.log" || true
        done
        echo "kernels: $version took $((SECONDS - start)) s"
    else
        echo "kernels: cannot fetch Linux $version, see $logs/$version.fetch.log"
        tail -n 5 "$logs/$version.fetch.log"
    fi
    for package; do
        row=$(report "$version" "$package" "$logs/$version.tests.log") || failures=$((failures + 1))
        table+=("$row")
    done
done

printf '\n%-7s %-20s %6s %7s %8s %6s  %s\n' KERNEL PACKAGE RAN FAILED SKIPPED TIME RESULT
printf '%s\n' "${table[@]}"
echo "logs: $logs"
if [ $failures != 0 ]; then
    for version in "${kernels[@]}"; do
        grep -hE '^ *--- FAIL|^panic:|^[^ ]+_test\.go' "$logs/$version.tests.log" 2>/dev/null | sed "s/^/$version: /" | head -n 40
    done
    exit 1
fi
