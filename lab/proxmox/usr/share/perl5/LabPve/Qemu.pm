# The process itself, and words with it.
package LabPve::Qemu;
use v5.36;
use Exporter 'import';
use IO::Select;
use Socket;
use LabPve::Machine;

our @EXPORT = qw(running config_to_command mon_cmd);

# PVE::QemuServer::Helpers::vm_running_locally: the PID file's process lives, and its command line names that file.
sub running($vmid) {
    my $pid = slurp_word("$RUN/$vmid.pid") or return undef;
    my $line = read_file("/proc/$pid/cmdline") // return undef;
    return $line =~ m|\0-pidfile\0/var/run/qemu-server/$vmid\.pid\0| ? $pid : undef;
}

# PVE::QemuServer::config_to_command, as far as the lab's VMs need it. Debian's QEMU has no -id, which is Proxmox's own.
sub config_to_command($vmid, $main, @devices) {
    my @command = ('/usr/bin/qemu-system-x86_64',
        '-name', ($main->{name} // "VM$vmid") . ',debug-threads=on', '-no-shutdown',
        '-chardev', "socket,id=qmp,path=/var/run/qemu-server/$vmid.qmp,server=on,wait=off", '-mon', 'chardev=qmp,mode=control',
        '-chardev', 'socket,id=qmp-event,path=/var/run/qmeventd.sock,reconnect=5', '-mon', 'chardev=qmp-event,mode=control',
        '-pidfile', "/var/run/qemu-server/$vmid.pid", '-daemonize',
        '-smp', $main->{cores} // 1, '-m', $main->{memory} // 32, '-M', 'q35', '-accel', 'tcg,thread=multi',
        '-nodefaults', '-display', 'none', '-vga', 'none');
    push @command, '-drive', "file=/var/lib/vz/$1,if=ide,format=raw,snapshot=on,file.locking=off" if ($main->{ide0} // '') =~ /^local:([^,]+)/;
    for my $device (@devices) {
        my $function = 0;
        for my $id (@{ $device->{ids} }) {
            my $slot = 0x10 + $device->{index};
            push @command, '-device', sprintf('vfio-pci,host=%s,id=hostpci%d.%d,bus=pcie.0,addr=0x%x.%d%s',
                $id, $device->{index}, $function, $slot, $function, $function || @{ $device->{ids} } == 1 ? '' : ',multifunction=on');
            $function++;
        }
    }
    push @command, split(' ', $main->{args} // '');
    return @command;
}

# PVE::QMPClient: connect, greet, ask, hang up; 5 s.
sub mon_cmd($vmid, $command) {
    $command = qq({"execute":"$command"}) if $command !~ /^\{/;
    socket(my $socket, PF_UNIX, SOCK_STREAM, 0) or die "socket: $!\n";
    connect($socket, sockaddr_un("$RUN/$vmid.qmp")) or die "VM $vmid qmp command failed - unable to connect to VM $vmid qmp socket - $!\n";
    my ($buffer, $until) = ('', uptime() + 5);
    my $line = sub($wanted) {
        while (1) {
            while ($buffer =~ s/^(.*?)\r?\n//) { my $found = $1; return $found if $found =~ $wanted }
            my $left = $until - uptime();
            die "VM $vmid qmp command failed - got timeout\n" if $left <= 0 || !IO::Select->new($socket)->can_read($left);
            sysread($socket, $buffer, 4096, length($buffer)) or die "VM $vmid qmp command failed - client closed connection\n";
        }
    };
    $line->(qr/"QMP"/);
    syswrite($socket, qq({"execute":"qmp_capabilities"}\n));
    $line->(qr/"return"|"error"/);
    syswrite($socket, "$command\n");
    my $answer = $line->(qr/"return"|"error"/);
    die "VM $vmid qmp command failed - $answer\n" if $answer =~ /^\{"error"/;
    return $answer;
}

1;
