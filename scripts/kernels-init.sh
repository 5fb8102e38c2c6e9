#!/bin/busybox sh
# shellcheck shell=dash
# The first process of the virtual machines of kernels.sh: mounts what the
# tests expect, runs every test binary, switches off. It runs in busybox.
export PATH=/bin HOME=/root CI=true GOTRACEBACK=all

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
ln -s /proc/self/fd /dev/fd

while read -r module; do
    insmod "/modules/$module" || echo "insmod $module: status $?"
done </modules/order
ip link set lo up
ulimit -n 20000
hostname vm

# The second serial port carries test output alone; the first has the kernel's
# messages.
exec >/dev/ttyS1 2>&1
read -r flags </tests/flags
for dir in /tests/*/; do
    name=$(basename "$dir")
    echo "### begin $name"
    start=$(cut -d. -f1 /proc/uptime)
    # shellcheck disable=SC2086,SC2065 # flags are several words; test is a program
    (cd "$dir" && ./test -test.v -test.timeout=18m $flags </dev/null)
    status=$?
    echo "### end $name $status $(($(cut -d. -f1 /proc/uptime) - start))"
done
sync
# The port is emulated byte by byte: what is still in its queue would be lost.
stty -F /dev/ttyS1 >/dev/null
sleep 1
poweroff -f
