# The VM's configuration.
package LabPve::Config;
use v5.36;
use Exporter 'import';
use LabPve::Machine;
use LabPve::Qemu;
use LabPve::Hookscript;

our @EXPORT = qw(config_path load_config write_config apply_pending check_lock set_lock qm_set config_text);

sub config_path($vmid, $node = $NODE) { "$PVE/nodes/$node/qemu-server/$vmid.conf" }

# PVE::QemuServer::parse_vm_config: the main section and [PENDING]. Snapshots have no part in what the lab does.
sub load_config($vmid) {
    my $text = read_file(config_path($vmid))
        // die "Configuration file 'nodes/$NODE/qemu-server/$vmid.conf' does not exist\n";
    my $config = { main => {}, pending => {} };
    my $section = $config->{main};
    for my $line (split(/\n/, $text)) {
        if ($line =~ /^\[(.*)\]\s*$/) { $section = lc($1) eq 'pending' ? $config->{pending} : {} }
        elsif ($line =~ /^#/) { $config->{description} .= "$line\n" if $section == $config->{main} }
        elsif ($line =~ /^([a-z][a-z_\-]*\d*):\s*(.+?)\s*$/) { $section->{$1} = $2 }
    }
    return $config;
}

# PVE::QemuServer::write_vm_config: sorted by key, the description on top.
sub write_config($vmid, $config) {
    my $text = $config->{description} // '';
    $text .= "$_: $config->{main}->{$_}\n" for sort keys %{ $config->{main} };
    if (%{ $config->{pending} }) {
        $text .= "\n[PENDING]\n";
        $text .= "$_: $config->{pending}->{$_}\n" for sort keys %{ $config->{pending} };
    }
    write_file(config_path($vmid), $text);
}

# PVE::QemuServer::vmconfig_apply_pending.
sub apply_pending($vmid, $config) {
    my $pending = $config->{pending};
    return if !%$pending;
    delete $config->{main}->{ s/^!//r } for split(/,/, delete($pending->{delete}) // '');
    $config->{main}->{$_} = $pending->{$_} for keys %$pending;
    $config->{pending} = {};
    write_config($vmid, $config);
}

# PVE::AbstractConfig::check_lock.
sub check_lock($config) { die "VM is locked ($config->{main}->{lock})\n" if $config->{main}->{lock} }

# PVE::AbstractConfig::set_lock, remove_lock.
sub set_lock($vmid, $lock) {
    lock_config($vmid, sub {
        my $config = load_config($vmid);
        if ($lock) { check_lock($config); $config->{main}->{lock} = $lock }
        else { delete $config->{main}->{lock} }
        write_config($vmid, $config);
    });
}

# PVE::API2::Qemu::update_vm: a running VM's hardware changes with its next start; who may read it changes at once.
sub qm_set($vmid, %options) {
    lock_config($vmid, sub {
        my $config = load_config($vmid);
        check_lock($config) if !delete($options{skiplock});
        my $running = running($vmid);
        check_hookscript($options{hookscript}) if $options{hookscript};
        my @gone = split(/,/, delete($options{delete}) // '');
        print "update VM $vmid:" . join('', map { " -$_ $options{$_}" } sort keys %options) . (@gone ? " -delete @gone" : '') . "\n";
        my $at_once = qr/^(hookscript|name|description|onboot|tags)$/;      # $fast_plug_option
        for my $key (@gone) {
            if ($running && $key !~ $at_once) {
                $config->{pending}->{delete} = join(',', grep { $_ } $config->{pending}->{delete}, $key);
            } else {
                delete $config->{main}->{$key};
            }
        }
        for my $key (keys %options) {
            my $section = $running && $key !~ $at_once ? $config->{pending} : $config->{main};
            $section->{$key} = $options{$key};
        }
        write_config($vmid, $config);
    });
    return 0;
}

# What qm config says: with what waits for the next start, or without.
sub config_text($vmid, %options) {
    my $config = load_config($vmid);
    my %all = %{ $config->{main} };
    if (!$options{current}) {
        delete $all{$_} for split(/,/, $config->{pending}->{delete} // '');
        %all = (%all, map { $_ => $config->{pending}->{$_} } grep { $_ ne 'delete' } keys %{ $config->{pending} });
    }
    return join('', map { "$_: $all{$_}\n" } sort keys %all);
}

1;
