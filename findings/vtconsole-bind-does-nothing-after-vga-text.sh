#!/usr/bin/env bash
# After a boot in VGA text mode, `echo 1 > /sys/class/vtconsole/vtconN/bind` reports success and does nothing.
#
# BELIEVED, best guess first:
#   1. `echo 0` to the bind file of "(M) frame buffer device" detaches it, and `echo 1` binds it again. The kernel's
#      Documentation/driver-api/console.rst says so: an "(M)" driver "can be directly commanded to bind or unbind".
#   2. When the kernel cannot bind it, the write fails.
#   3. All firmware is alike here: the DRM driver has taken the screen over by then.
#
# SEEN: the first line of each boot is what the firmware left; then come the commands and what the kernel shows after
# each: every console driver with its bind file, and the frame buffer. The command under test is `echo 1`: with SeaBIOS
# (VGA text mode) it changes nothing and its exit status is 0, with UEFI it works. The script compares with these lines.
#
#   | SeaBIOS
#   |     boot: (S) VGA+ = 1, fb0 none
#   |     modprobe bochs: (M) dummy device = 0, (M) frame buffer device = 1, fb0 bochs-drmdrmfb
#   |     echo 0 > bind, exit 0: (M) dummy device = 1, (M) frame buffer device = 0, fb0 bochs-drmdrmfb
#   |     echo 1 > bind, exit 0: (M) dummy device = 1, (M) frame buffer device = 0, fb0 bochs-drmdrmfb
#   |     a write that the kernel refuses, exit 1
#   |     driver's unbind, exit 0, and bind, exit 0: (M) dummy device = 0, (M) frame buffer device = 1, fb0 bochs-drmdrmfb
#   | UEFI
#   |     boot: (M) frame buffer device = 1, (S) dummy device = 0, fb0 EFI VGA
#   |     modprobe bochs: (M) frame buffer device = 1, (S) dummy device = 0, fb0 bochs-drmdrmfb
#   |     echo 0 > bind, exit 0: (M) frame buffer device = 0, (S) dummy device = 1, fb0 bochs-drmdrmfb
#   |     echo 1 > bind, exit 0: (M) frame buffer device = 1, (S) dummy device = 0, fb0 bochs-drmdrmfb
#   |     a write that the kernel refuses, exit 1
#   |     driver's unbind, exit 0, and bind, exit 0: (M) frame buffer device = 1, (S) dummy device = 0, fb0 bochs-drmdrmfb
#
# The console comes back when the GPU's DRM driver is unbound and bound again: fbcon then takes the consoles by itself.
#
# WHY (Linux 6.1; 6.12 is alike):
#   drivers/tty/vt/vt.c:con_init registers the console driver of the boot, the only one without CON_DRIVER_FLAG_MODULE:
#     "(S)". In VGA text mode that is VGA+; after a UEFI boot it is the dummy.
#   drivers/tty/vt/vt.c:do_register_con_driver gives each later one that flag: "(M)".
#   drivers/video/aperture.c:aperture_remove_conflicting_pci_devices, which the probe of a DRM driver calls, comes to
#     drivers/pci/vgaarb.c:vga_remove_vgacon: it puts the dummy in the place of VGA+, as a later driver, and unregisters
#     VGA+. So no "(S)" driver is left, although console.rst says that the system driver "can never be unloaded".
#   drivers/tty/vt/vt.c:vt_bind takes consoles from the "(S)" driver only. It finds none, and returns 0.
#   drivers/tty/vt/vt.c:store_bind drops what vt_bind returns, and reports the write as done.
#   drivers/tty/vt/vt.c:do_unbind_con_driver takes any other driver as the one to fall back to, so `echo 0` works.
#
# VERSIONS: Debian 12 (bookworm), amd64: linux-image-6.1.0-50-amd64 6.1.176-1, busybox-static 1:1.35.0-4+deb12u1+b1,
#   ovmf 2022.11-6+deb12u2, which the script fetches; QEMU 7.2.22 with SeaBIOS 1.16.2, which it expects to be there.
#   linux-image-6.12.117+deb12-amd64 6.12.117-1~deb12u1 shows the same lines when RELEASE and KERNEL below name it.
#
# It needs no root, no KVM and no GPU; 80 MB of download, 550 MB in the temporary folder, and about a minute.
# Exit code: 0 as SEEN, 1 it has changed, 2 could not run.
set -euo pipefail
export LC_ALL=C

RELEASE=6.1.0-50-amd64
KERNEL=linux-image-$RELEASE=6.1.176-1
BUSYBOX=busybox-static=1:1.35.0-4+deb12u1+b1
OVMF=ovmf=2022.11-6+deb12u2
BOOT_SECONDS=${BOOT_SECONDS:-400}   # the most that one boot may take; without load it takes about 20

cannot() { echo "could not run: $*" >&2; exit 2; }

# Whatever ends the script before its last lines means that it could not run.
verdict=2
seen=$(sed -n 's/^#   | //p' "$0")
work=$(mktemp -d) || cannot "no temporary folder"
trap 'rm -rf "$work"; exit $verdict' EXIT
cd "$work"

command -v qemu-system-x86_64 > /dev/null || cannot "qemu-system-x86_64 is missing: install Debian's qemu-system-x86"
command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null || cannot "apt-get or dpkg-deb is missing"
for package in $KERNEL $BUSYBOX $OVMF; do
    apt-get -qq -o APT::Sandbox::User=root download "$package" >&2 || cannot "apt does not offer $package." \
        "This needs Debian 12 (amd64), and apt-get update before. If the archive has dropped this version, choose one" \
        "that apt-cache policy lists, pin it in this script (for a kernel: RELEASE too), and write down what it shows."
done
for deb in *.deb; do dpkg-deb -x "$deb" packages || cannot "dpkg-deb cannot unpack $deb"; done

# The initramfs: busybox, the kernel's module bochs with all that it depends on, and the guest's script.
busybox=$work/packages/bin/busybox
modules=lib/modules/$RELEASE
"$busybox" depmod -b packages $RELEASE || cannot "depmod failed"
needed=$(grep '/bochs\.ko[^ ]*:' "packages/$modules/modules.dep" | tr -d :) || cannot "$KERNEL has no module bochs"
mkdir -p tree/{bin,dev,proc,sys} "tree/$modules"
cp "$busybox" tree/bin/
cp "packages/$modules/modules.dep" "tree/$modules/"
for module in $needed; do install -D -m 0644 "packages/$modules/$module" "tree/$modules/$module"; done

cat > tree/init <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys

# Without the numbers: they depend on how soon the kernel drops the entry of VGA+.
drivers() { for c in /sys/class/vtconsole/*; do echo "$(cat $c/name) = $(cat $c/bind), "; done 2>/dev/null | sort | tr -d '\n'; }
show() {    # show WHAT: waits until the list stays the same for two seconds
    now=$(drivers)
    for try in 1 2 3 4 5 6 7 8 9 10; do
        sleep 2; before=$now; now=$(drivers)
        [ "$now" != "$before" ] || break
    done
    echo "| $1: ${now}fb0 $(cat /sys/class/graphics/fb0/name 2>/dev/null || echo none)"
}
write() { status=0; echo "$1" 2>/dev/null > "$2" || status=$?; }

show "boot"
modprobe bochs || { echo "modprobe bochs failed"; poweroff -f; }
show "modprobe bochs"

fbcon=$(grep -l 'frame buffer device' /sys/class/vtconsole/*/name)
bind=${fbcon%/name}/bind
[ -w "$bind" ] || { echo "no frame buffer console"; poweroff -f; }
write 0 $bind
show "echo 0 > bind, exit $status"
write 1 $bind
show "echo 1 > bind, exit $status"

driver=/sys/bus/pci/drivers/bochs-drm
gpu=$(ls $driver | grep :)
write none $driver/bind
echo "| a write that the kernel refuses, exit $status"
write $gpu $driver/unbind; first=$status
write $gpu $driver/bind
show "driver's unbind, exit $first, and bind, exit $status"
echo "end of the guest's script"
poweroff -f
INIT
chmod +x tree/init
(cd tree && find . | "$busybox" cpio -o -H newc 2> /dev/null | gzip -1) > initrd

boot() {    # boot NAME [ARGUMENTS OF QEMU]: writes what the guest shows, and keeps it in the file NAME
    timeout --foreground "$BOOT_SECONDS" qemu-system-x86_64 -M pc -accel tcg -m 256 -vga std -nic none "${@:2}" \
        -display none -monitor none -no-reboot -serial stdio -kernel "packages/boot/vmlinuz-$RELEASE" -initrd initrd \
        -append "console=ttyS0 loglevel=1 panic=-1" < /dev/null > "$1.log" 2>&1 || true
    { echo "$1"; tr -d '\r' < "$1.log" | sed -n 's/^| /    /p'; } > "$1"
    cat "$1"
    grep -q "^end of the guest's script" "$1.log" || {
        tail -n 20 "$1.log" >&2
        cannot "the boot with $1 came to no end in $BOOT_SECONDS s, or ended too early: its last lines stand above"
    }
}

qemu-system-x86_64 --version | head -n 1
echo "$KERNEL"
boot SeaBIOS
grep -q '^    boot: (S) VGA+ = 1, fb0 none$' SeaBIOS || cannot "the guest with SeaBIOS did not boot in VGA text mode"
boot UEFI -bios packages/usr/share/ovmf/OVMF.fd

if diff <(echo "$seen") <(cat SeaBIOS UEFI) >&2; then
    echo "as stated: echo 1 > bind reports success and binds nothing after a boot in VGA text mode"
    verdict=0
else
    echo "changed: < is what was seen, > is what this run shows" >&2
    verdict=1
fi
