# Read by the scripts that start machines; they have set $target, $here, $project and $work.
# shellcheck shell=sh disable=SC2154
mkdir -p "$work"
"$here/../install-packages" systemd-node/packages.txt
[ -s "$work/kernel" ] || "$here/../kernels/fetch" "$target/kernels" 6.12 >"$work/kernel"
read -r version kernel <"$work/kernel"

# make_initramfs SCRIPT: what brings the machine to its root disk; it leaves SCRIPT for the machine's service.
make_initramfs() {
    initramfs=$work/initramfs-$1
    rm -rf "$initramfs"
    mkdir -p "$initramfs/bin" "$initramfs/modules" "$initramfs/dev" "$initramfs/root"
    depmod --basedir "$kernel" "$version"
    number=10
    for module in virtio_blk squashfs; do
        modprobe --dirname "$kernel" --set-version "$version" --show-depends "$module" >"$work/depends"
        while read -r how path; do
            [ "$how" = insmod ] || continue # The others are built in.
            name=$(basename "$path" .xz)
            [ -e "$(echo "$initramfs"/modules/*-"$name")" ] && continue
            case $path in
            *.xz) xz --decompress --stdout "$path" >"$initramfs/modules/$number-$name" ;;
            *) cp "$path" "$initramfs/modules/$number-$name" ;;
            esac
            number=$((number + 1))
        done <"$work/depends"
    done
    cp /bin/busybox "$initramfs/bin/"
    ln -s busybox "$initramfs/bin/sh"
    cp "$here/initramfs" "$initramfs/init"
    cp "$here/$1" "$initramfs/script"
    (cd "$initramfs" && find . | cpio --quiet --create --format=newc) | gzip -1 >"$initramfs.gz"
}

# boot MODE NAME WORDS DISK…: a machine with these words on the kernel's command line. Its consoles are MODE-NAME.log, and
# MODE-NAME.out for what the service prints. It ends when it is switched off, and when it reboots unless $at_reboot is `reset`.
#
# Its clock counts instructions (-icount): a slow emulation, on a busy machine, is not seen in there. Without cmpxchg16b, which
# Debian 12's qemu gets wrong; and without what a real processor needs against speculation, which is slow in here.
boot() {
    console=$1-$2
    case $1 in
    plain) words=$3 ;;
    selinux) words="security=selinux selinux=1 enforcing=1 $3" ;;
    esac
    shift 3
    for disk; do
        shift
        # Nothing is written to the files.
        set -- "$@" -drive "file=$work/$disk,format=raw,if=virtio,snapshot=on"
    done
    timeout 7200 qemu-system-x86_64 -accel tcg -icount shift=0,sleep=on -cpu qemu64,-cx16 -smp 2 -m 5G -nic none -display none -monitor none \
        -action "reboot=${at_reboot:-shutdown}" -serial "file:$work/$console.log" -serial "file:$work/$console.out" -kernel "$(find "$kernel" -name 'vmlinuz*')" \
        -initrd "$initramfs.gz" -append "console=ttyS0 panic=-1 audit=1 mitigations=off $words" "$@" </dev/null ||
        echo "qemu ended with exit code $?; see $work/$console.log" >&2
}
