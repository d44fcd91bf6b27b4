# PCI devices: mappings, reservations, and the bind to vfio-pci.
package LabPve::Pci;
use v5.36;
use Exporter 'import';
use LabPve::Machine;
use LabPve::Qemu;

our @EXPORT = qw(choose_hostpci reserve_pci_usage cleanup_pci_devices prepare_pci_device);

my $RESERVATIONS = "$RUN/pci-id-reservations";

# PVE::SysFSTools::lspci: by prefix, with the domain 0000 where none is written.
sub lspci($id) {
    my $name = $id =~ /^[0-9a-f]{4,}:[0-9a-f]{2}:/ ? $id : "0000:$id";
    return grep { /^\Q$name\E/ } names('/sys/bus/pci/devices');
}

sub ids($device, @files) { return join(':', map { slurp_word("$device/$_") =~ s/^0x//r } @files) }

# PVE::Mapping::PCI: the alternatives of this node, each checked against what is there (assert_valid).
sub mapped($id) {
    my ($section, @alternatives) = ('');
    for my $line (split(/\n/, read_file("$PVE/mapping/pci.cfg") // '')) {
        if ($line =~ /^(\S+)\s*$/) { $section = $1 }
        elsif ($line =~ /^\s+map\s+(\S+)\s*$/ && $section eq $id) {
            my %map = map { split(/=/, $_, 2) } split(/,/, $1);
            next if $map{node} ne $NODE;
            my @functions = map { lspci($_) } split(/;/, $map{path});
            die "PCI device mapping invalid (hardware probably changed): $map{path} is missing\n" if !@functions;
            my $device = "/sys/bus/pci/devices/$functions[0]";
            my %found = (
                id => ids($device, 'vendor', 'device'),
                'subsystem-id' => ids($device, 'subsystem_vendor', 'subsystem_device'),
                iommugroup => readlink("$device/iommu_group") =~ s|.*/||r,
            );
            for my $key (sort keys %found) {
                my $wanted = $map{$key} // 'nothing';
                die "PCI device mapping invalid (hardware probably changed): '$key' does not match ($found{$key} != $wanted)\n" if $found{$key} ne $wanted;
            }
            push @alternatives, \@functions;
        }
    }
    die "PCI device mapping not found for '$id'\n" if !@alternatives;
    return @alternatives;
}

# PVE::QemuServer::PCI::parse_hostpci_devices and choose_hostpci_devices: hostpci0 upward; a single alternative outright, of
# several the first one that is free and can be reserved, for 15 s at first.
sub choose_hostpci($vmid, $main) {
    my (%used, @chosen);
    for my $n (0 .. 15) {
        my $text = $main->{"hostpci$n"} // next;
        my %device;
        for my $part (grep { length } split(/,/, $text)) {
            my ($key, $value) = $part =~ /^([a-z\-]+)=(.*)$/ ? ($1, $2) : ('host', $part);
            $device{$key} = $value;
        }
        my @alternatives = $device{mapping}
            ? mapped($device{mapping})
            : ([map { my @found = lspci($_); die "no PCI device found for '$_'\n" if !@found; @found } split(/;/, $device{host})]);
        my $choice;
        for my $alternative (@alternatives) {
            if (@alternatives > 1) {
                next if grep { $used{$_} } @$alternative;
                eval { reserve_pci_usage($alternative, $vmid, 10, undef) };
                next if $@;
            }
            $choice = $alternative;
            last;
        }
        die "could not find a free device for 'hostpci$n'\n" if !$choice;
        for my $function (@$choice) { die "device '$function' assigned more than once\n" if $used{$function}++ }
        push @chosen, { %device, index => $n, ids => $choice };
    }
    return @chosen;
}

sub parse_reservations() {
    my %reserved;
    for (split(/\n/, read_file($RESERVATIONS) // '')) {
        $reserved{$1} = { vmid => $2, $3 => $4 } if /^(\S+) (\d+) (time|pid):(\d+)$/;
    }
    return \%reserved;
}

sub write_reservations($reserved) {
    write_file($RESERVATIONS, join('', map {
        my $r = $reserved->{$_};
        "$_ $r->{vmid} " . (defined($r->{pid}) ? "pid:$r->{pid}" : "time:$r->{time}") . "\n"
    } sort keys %$reserved));
}

# PVE::QemuServer::PCI::reserve_pci_usage.
sub reserve_pci_usage($functions, $vmid, $timeout, $pid) {
    return if !@$functions;
    lock_file("$RESERVATIONS.lock", 5, sub {
        my $reserved = parse_reservations();
        for my $function (@$functions) {
            my $by = $reserved->{$function};
            if ($by && $by->{vmid} != $vmid) {
                die "PCI device '$function' is currently reserved for use by VMID '$by->{vmid}'\n" if $by->{time} && $by->{time} > time();
                if ($by->{pid}) {
                    die "PCI device '$function' already in use by VMID '$by->{vmid}'\n" if (running($by->{vmid}) // 0) == $by->{pid};
                    warn "leftover PCI reservation found for $function, lets take it...\n";
                }
            }
            $reserved->{$function} = { vmid => $vmid, defined($pid) ? (pid => $pid) : (time => time() + $timeout + 5) };
        }
        write_reservations($reserved);
    });
}

# PVE::QemuServer::cleanup_pci_devices: the reservations go, no driver is bound.
sub cleanup_pci_devices($vmid) {
    lock_file("$RESERVATIONS.lock", 2, sub {
        my $reserved = parse_reservations();
        delete $reserved->{$_} for grep { $reserved->{$_}->{vmid} == $vmid } keys %$reserved;
        write_reservations($reserved);
    });
}

# PVE::QemuServer::PCI::prepare_pci_device, with PVE::SysFSTools::pci_dev_group_bind_to_vfio and pci_dev_reset.
sub prepare_pci_device($function, $device) {
    my $folder = "/sys/bus/pci/devices/$function";
    die "cannot prepare PCI pass-through, IOMMU not present\n" if !names('/sys/class/iommu');
    return if ($device->{driver} // 'vfio') eq 'keep';
    run_command(['/sbin/modprobe', 'vfio-pci']) if !-d '/sys/bus/pci/drivers/vfio-pci';
    for my $member (names("$folder/iommu_group/devices")) {
        next if -d "/sys/bus/pci/devices/$member/pci_bus";
        bind_to_vfio($member) or die "Cannot bind $function to vfio\n";
    }
    if (-e "$folder/reset") {
        write_sysfs("$folder/reset", '1') or warn "failed to reset PCI device '$function', but trying to continue as not all devices need a reset\n";
    }
}

# PVE::SysFSTools::pci_dev_bind_to_vfio: what is there already is left alone. Else by new_id, for which nobody asks afterwards.
sub bind_to_vfio($function) {
    my ($device, $driver) = ("/sys/bus/pci/devices/$function", '/sys/bus/pci/drivers/vfio-pci');
    return 1 if -d "$driver/$function";
    my $ids = ids($device, 'vendor', 'device') =~ tr/:/ /r;
    # For a case to see that Proxmox had to do it: no file of the kernel's shows what is in new_id.
    if (open(my $note, '>>', "$LAB/new_id")) { print $note "$function $ids\n" }
    write_sysfs("$driver/new_id", $ids) or $!{EEXIST} or return 0;
    if (-d "$device/driver") { write_sysfs("$device/driver/unbind", $function) or return 0 }
    return 1 if -d "$driver/$function";
    write_sysfs("$driver/bind", $function) or return 0;
    return -d "$driver/$function";
}

1;
