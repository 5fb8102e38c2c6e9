#!/usr/bin/env bash
# Installs connectd on an EC2 container instance, as user data or by hand, on
# Amazon Linux 2023 and 2. It may run as often as one likes: what is as it
# should be is left alone, and a new URL with its sum is an upgrade.
#
# CONNECTD_URL         https:// or s3:// of the binary for this architecture
# CONNECTD_SHA256      its SHA-256 in hex; without a match nothing is changed
# CONNECTD_NAMESPACES  prod,tools: what tasks here may join. With it, or with
# CONNECTD_CONFIG      the whole connectd.yaml as text, the config file is
#                      written; with neither there has to be one already
# CONNECTD_CLOUD_MAP   no: tasks of this node know one another only. Default yes
#
# Put the parameters above this line of user data, or export them. It takes the
# instance role's ecs:PutAttributes and so on (scripts/iam-policy.json).
set -euo pipefail

root=${DESTDIR:-} # tests install into a folder of their own
bin=$root/usr/local/bin/connectd
config=$root/etc/connectd/connectd.yaml
units=$root/etc/systemd/system
url=${CONNECTD_URL:-} sum=${CONNECTD_SHA256:-}
changed=no # whether the daemon has to be restarted

say() { echo "connectd: $*"; }
die() {
    echo "connectd: $*" >&2
    exit 1
}

check_parameters() {
    local wrong=()
    case $url in
    https://?* | s3://?*/?*) ;;
    "") wrong+=("CONNECTD_URL is missing: an https:// or s3:// address of the binary") ;;
    *) wrong+=("CONNECTD_URL is neither https:// nor s3://: $url") ;;
    esac
    [[ $sum =~ ^[0-9a-fA-F]{64}$ ]] || wrong+=("CONNECTD_SHA256 is not 64 hex digits: '$sum'")
    if [ -n "${CONNECTD_NAMESPACES:-}" ]; then
        [[ $CONNECTD_NAMESPACES =~ ^[a-z0-9_.-]+(,[a-z0-9_.-]+)*$ ]] ||
            wrong+=("CONNECTD_NAMESPACES is no list such as prod,tools: '$CONNECTD_NAMESPACES'")
    elif [ -z "${CONNECTD_CONFIG:-}" ] && [ ! -f "$config" ]; then
        wrong+=("CONNECTD_NAMESPACES is missing: there is no $config yet")
    fi
    case ${CONNECTD_CLOUD_MAP:=yes} in
    yes | no) ;;
    *) wrong+=("CONNECTD_CLOUD_MAP is neither yes nor no: $CONNECTD_CLOUD_MAP") ;;
    esac
    [ -n "$root" ] || [ "$(id -u)" = 0 ] || wrong+=("this takes root")
    [ ${#wrong[@]} = 0 ] && return
    printf 'connectd: %s\n' "${wrong[@]}" >&2
    die "nothing was changed"
}

# The ECS-optimized images come without the command line of AWS.
need_aws() {
    command -v aws >/dev/null && return
    yum -y -q install awscli || yum -y -q install awscli-2 ||
        die "cannot install the AWS CLI: give an https:// address, which may be a presigned one"
}

# fetch leaves the verified binary beside its place, for a rename puts it there.
fetch() {
    sum=${sum,,}
    if [ -f "$bin" ] && [ "$(sha256sum <"$bin")" = "$sum  -" ]; then
        say "the binary is the one asked for"
        return
    fi
    mkdir -p "${bin%/*}"
    new=$(mktemp "$bin.XXXXXX")
    trap 'rm -f "$new"' EXIT
    case $url in
    s3://*)
        need_aws
        aws s3 cp --only-show-errors "$url" "$new" || die "cannot fetch $url: nothing was changed"
        ;;
    *) curl -fsSL --proto '=https' --retry 5 --max-time 300 -o "$new" "$url" || die "cannot fetch $url: nothing was changed" ;;
    esac
    local got
    got=$(sha256sum <"$new")
    [ "$got" = "$sum  -" ] || die "$url has the SHA-256 ${got%% *}, not $sum: nothing was changed"
    chmod 0755 "$new"
    "$new" version >/dev/null || die "$url does not run here ($(uname -m)): nothing was changed"
}

# put MODE FILE writes its input there, if that is not there already.
put() {
    local text
    text=$(cat && echo .) # the shell cuts newlines off, but not before a dot
    if [ -f "$2" ] && [ "$(cat "$2" && echo .)" = "$text" ]; then
        return
    fi
    mkdir -p "${2%/*}"
    printf %s "${text%.}" >"$2.new"
    chmod "$1" "$2.new"
    mv -f "$2.new" "$2"
    changed=yes
    say "wrote $2"
}

put_binary() {
    [ -n "${new:-}" ] || return 0
    mv -f "$new" "$bin"
    trap - EXIT
    changed=yes
    say "installed $("$bin" version | head -n 1)"
}

# The mounts have to be the host's, and there before the first task: the unit
# is for the boots to come, in which user data does not run.
put_mounts() {
    put 0755 "$root/usr/local/sbin/connectd-mounts" <<'MOUNTS'
#!/bin/sh
# bpffs, which older systemds do not mount, and cgroup2 where v1 is in use: runc
# puts containers there too, at this place and no other.
set -eu
root=${DESTDIR:-}
has() { grep -q "$1" "$root/proc/mounts"; }
has '^[^ ]* /sys/fs/bpf bpf ' || mount -t bpf bpf "$root/sys/fs/bpf"
if ! has '^[^ ]* [^ ]* cgroup2 '; then
    ! has '^[^ ]* /sys/fs/cgroup tmpfs ro' || mount -o remount,rw "$root/sys/fs/cgroup"
    mkdir -p "$root/sys/fs/cgroup/unified"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
fi
MOUNTS
    put 0644 "$units/connectd-mounts.service" <<'UNIT'
[Unit]
Description=Mounts that connectd needs
Before=connectd.service docker.service ecs.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/connectd-mounts
[Install]
WantedBy=connectd.service multi-user.target
UNIT
    "$root/usr/local/sbin/connectd-mounts" || die "cannot mount what connectd needs: it is not started"
}

put_config() {
    local text
    if [ -n "${CONNECTD_CONFIG:-}" ]; then
        put 0644 "$config" <<<"$CONNECTD_CONFIG"
    elif [ -n "${CONNECTD_NAMESPACES:-}" ]; then
        text="# Written by user data: when that runs again, other changes are lost."
        text+=$'\n'"zone: auto"$'\n'"ecs:"$'\n'"  namespaces: [\"${CONNECTD_NAMESPACES//,/\", \"}\"]"
        [ "$CONNECTD_CLOUD_MAP" = no ] || text+=$'\n'"cloudMap: {region: auto}"
        put 0644 "$config" <<<"$text"
    fi
}

put_unit() {
    # scripts/connectd.service, where reasons stand beside each line.
    put 0644 "$units/connectd.service" <<'UNIT'
[Unit]
Description=connectd: names that lead to healthy endpoints
Before=docker.service ecs.service
After=sys-fs-bpf.mount sys-fs-cgroup-unified.mount
StartLimitIntervalSec=0
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/local/bin/connectd run
ExecReload=/usr/local/bin/connectd reload
Restart=always
RestartSec=1
WatchdogSec=30
TimeoutStartSec=30
TimeoutStopSec=30
KillMode=mixed
LimitNOFILE=1048576
LimitMEMLOCK=infinity
OOMScoreAdjust=-900
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_NET_ADMIN CAP_SYS_PTRACE
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
StateDirectory=connectd
StateDirectoryMode=0700
RuntimeDirectory=connectd
RuntimeDirectoryPreserve=yes
LogsDirectory=connectd
ReadWritePaths=/sys/fs/bpf -/var/lib/docker/containers -/etc/netns
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectControlGroups=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
RestrictNamespaces=net
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service bpf setns unshare
SystemCallFilter=~@keyring @setuid @chown
SystemCallErrorNumber=EPERM
UMask=0022
[Install]
WantedBy=multi-user.target
UNIT
    local version
    version=$(systemctl --version | awk 'NR == 1 { print $2 }')
    if [ "${version%%[!0-9]*}" -ge 235 ]; then
        rm -f "$units/connectd.service.d/10-systemd219.conf"
        return
    fi
    # scripts/connectd-systemd219.conf
    put 0644 "$units/connectd.service.d/10-systemd219.conf" <<'UNIT'
[Service]
SystemCallFilter=
StartLimitInterval=0
ProtectSystem=full
UNIT
    # Made by the unit itself from systemd 235 on.
    mkdir -p "$root/var/log/connectd" "$root/var/lib/connectd"
    chmod 0700 "$root/var/lib/connectd"
}

# The agent waits for cloud-init, so connectd is there before the first task.
start() {
    systemctl daemon-reload
    systemctl enable connectd-mounts.service connectd.service
    local verb=start
    [ $changed = no ] || verb=restart
    systemctl $verb connectd.service ||
        die "installed, but it did not start, and tasks go on without it: journalctl -u connectd; connectd doctor"
    say "is running"
}

check_parameters
fetch
put_binary
put_mounts
put_config
put_unit
start
