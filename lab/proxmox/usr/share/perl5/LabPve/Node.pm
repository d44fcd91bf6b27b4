# An installed node.
package LabPve::Node;
use v5.36;
use Exporter 'import';
use LabPve::Machine;
use LabPve::Hookscript;

our @EXPORT = qw(lab_setup);

# What is there on an installed node, and a guest that ends itself when the power button or any key is pressed.
sub lab_setup() {
    for (qw(/etc/pve /etc/pve/mapping /etc/pve/nodes /etc/pve/ha /var/lib/vz /var/lib/vz/snippets /var/lib/vz/images /var/log/pve
            /var/log/pve/tasks /run/qemu-server /run/lock/qemu-server /run/lab-pve), "$PVE/nodes/$NODE", "$PVE/nodes/$NODE/qemu-server") {
        mkdir($_);
    }
    mkdir("$PVE/lxc");
    symlink("../../lxc", "$PVE/nodes/$NODE/lxc");
    symlink("nodes/$NODE", "$PVE/local");
    symlink("nodes/$NODE/qemu-server", "$PVE/qemu-server");
    write_file("$PVE/storage.cfg", "dir: local\n\tpath /var/lib/vz\n\tcontent iso,vztmpl,backup\n\n");
    symlink('/usr/sbin/gpu-handoff', "$SNIPPETS/gpu-handoff");
    symlink('/bin/busybox', "$SNIPPETS/true");                      # a static program that does nothing: what a hook costs at least

    # A boot sector. It enables the power button's event in QEMU's PM registers (at 0x600) and halts between two ticks of the
    # timer until that button or a key is pressed; then it writes S5 to PM1a_CNT, which is a guest's power-off.
    my $sector = pack('H*', join('',
        'fb',                       # sti
        'ba0206', 'b80001', 'ef',   # mov dx, 0x602; mov ax, 0x100; out dx, ax
        'f4',                       # again: hlt
        'ba0006', 'ed',             # mov dx, 0x600; in ax, dx
        'f6c401', '7506',           # test ah, 1; jnz off
        'b401', 'cd16',             # mov ah, 1; int 0x16
        '74f0',                     # jz again
        'ba0406', 'b80020', 'ef',   # off: mov dx, 0x604; mov ax, 0x2000; out dx, ax
        'ebe7'));                   # jmp again
    write_file('/var/lib/vz/images/guest.raw', $sector . "\0" x (510 - length($sector)) . "\x55\xaa" . "\0" x (512 * 2047));

    # Who asks dpkg for Proxmox's version gets one.
    if ((read_file('/var/lib/dpkg/status') // '') !~ /^Package: qemu-server$/m && open(my $status, '>>', '/var/lib/dpkg/status')) {
        print $status "\nPackage: qemu-server\nStatus: install ok installed\nMaintainer: lab\nArchitecture: amd64\nVersion: 9.1.13\nDescription: stand-in\n";
    }
    return 0;
}

1;
