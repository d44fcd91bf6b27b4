# From start to stop.
package LabPve::LifeCycle;
use v5.36;
use Exporter 'import';
use LabPve::Machine;
use LabPve::Task;
use LabPve::Config;
use LabPve::Hookscript;
use LabPve::Pci;
use LabPve::Qemu;

our @EXPORT = qw(vm_start vm_stop vm_reboot qm_cleanup migrate);

my $CLEANUP_WAIT = 60;

# What a case may ask for. How long PVE waits after its SIGTERM; a QEMU in uninterruptible sleep, which SIGKILL does not end.
my $SIGTERM_WAIT = $ENV{LAB_PVE_SIGTERM_WAIT} // 10;
my $SIGKILL_IS_LOST = $ENV{LAB_PVE_SIGKILL_IS_LOST};

# PVE::QemuServer::vm_start, called with the task begun. Everything happens with the VM's lock in hand.
sub vm_start($vmid, %options) {
    lock_config($vmid, sub {
        my $config = load_config($vmid);
        die "you can't start a vm if it's a template\n" if $config->{main}->{template} && !$options{skiptemplate};
        check_lock($config) if !$options{skiplock};
        die "VM $vmid already running\n" if running($vmid);
        vm_start_nolock($vmid, $config, %options);
    });
}

# PVE::QemuServer::vm_start_nolock.
sub vm_start_nolock($vmid, $config, %options) {
    unlink("$RUN/$vmid.reboot");                                    # clear_reboot_request
    apply_pending($vmid, $config);
    $ENV{PVE_MIGRATED_FROM} = '';
    # Nothing is checked or reserved yet, and nobody cleans up where this fails.
    exec_hookscript($config->{main}, $vmid, 'pre-start', 1);

    my $timeout = grep({ /^hostpci/ } keys %{ $config->{main} }) ? 120 : 30;    # Helpers::config_aware_timeout
    my (@command, @reserved);
    eval {
        my @devices = choose_hostpci($vmid, $config->{main});
        @command = config_to_command($vmid, $config->{main}, @devices);
        push @command, '-S' if $options{paused};
        @reserved = map { @{ $_->{ids} } } @devices;
        reserve_pci_usage(\@reserved, $vmid, $timeout, undef);
        for my $device (@devices) { prepare_pci_device($_, $device) for @{ $device->{ids} } }
    };
    if (my $error = $@) {
        eval { cleanup_pci_devices($vmid) };
        die $error;
    }

    # A scope of an earlier run is ended first, then QEMU is started in one by a child of its own (run_fork, enter_systemd_scope).
    if (-e "/sys/fs/cgroup/qemu.slice/$vmid.scope") {
        run_command(['/bin/systemctl', 'stop', "$vmid.scope"], quiet => 1, noerr => 1);
    }
    eval {
        my $ended = run_command(['/usr/bin/systemd-run', '--scope', '--quiet', '--collect', '--slice=qemu.slice',
            "--unit=$vmid.scope", "--description=Proxmox VE VM $vmid", '--property=KillMode=process', '--property=SendSIGKILL=no',
            '--', @command], noerr => 1);
        die 'QEMU exited with code ' . ($ended >> 8) . "\n" if $ended;
    };
    if (my $error = $@) {
        eval { cleanup_pci_devices($vmid) };
        die "start failed: $error";
    }
    eval { reserve_pci_usage(\@reserved, $vmid, undef, running($vmid)) };
    warn $@ if $@;
    write_file("$RUN/$vmid.cleanup", time());                       # RunState::create_cleanup_flag
    exec_hookscript($config->{main}, $vmid, 'post-start');
}

# RunState::can_use_cleanup_flag: "legacy cleanup" is all of Proxmox VE 8, and 9 before qemu-server 9.1.13.
sub is_legacy() { -f "$RUN/force-legacy-cleanup" }

# PVE::QemuServer::vm_stop_cleanup.
sub vm_stop_cleanup($vmid, $config, %options) {
    return if !is_legacy() && !-f "$RUN/$vmid.cleanup";
    unlink("$RUN/$vmid.$_") for qw(mon qmp pid vnc qga);
    eval {
        cleanup_pci_devices($vmid);
        apply_pending($vmid, $config) if $options{apply_pending};
    };
    warn $@ if $@;
    exec_hookscript($config->{main}, $vmid, 'post-stop') if !is_legacy() && !$options{skip_hookscript};
    unlink("$RUN/$vmid.cleanup");
}

sub gone_within($vmid, $seconds) {
    for (my $until = uptime() + $seconds; uptime() < $until; pause(0.1)) { return 1 if !running($vmid) }
    return !running($vmid);
}

# PVE::QemuServer::_do_vm_stop, with the lock in hand. PVE looks once a second, we ten times.
sub do_vm_stop($vmid, %options) {
    my $pid = running($vmid) or return;
    my $config = load_config($vmid);
    check_lock($config) if !$options{skiplock};
    my $force = $options{force} // !$options{shutdown};
    exec_hookscript($config->{main}, $vmid, 'pre-stop');

    eval { mon_cmd($vmid, $options{shutdown} ? 'system_powerdown' : 'quit') };
    if (my $error = $@) {
        if (!running($vmid)) {
            warn "Unexpected: VM shutdown command failed, but VM not running anymore..\n";
            return;
        }
        die "VM quit/powerdown failed\n" if !$force;
        warn "VM quit/powerdown failed - terminating now with SIGTERM\n";
    } elsif (gone_within($vmid, $options{timeout} // 60)) {
        vm_stop_cleanup($vmid, $config, apply_pending => 1);
        return;
    } else {
        # With pre-stop behind it, and QEMU running.
        die "VM quit/powerdown failed - got timeout\n" if !$force;
        warn "VM still running - terminating now with SIGTERM\n";
    }
    kill('TERM', $pid);
    if (!gone_within($vmid, $SIGTERM_WAIT)) {
        warn "VM still running - terminating now with SIGKILL\n";
        kill('KILL', $pid) if !$SIGKILL_IS_LOST;
        sleep(1);
    }
    # Whether it is gone by now nobody asks.
    vm_stop_cleanup($vmid, $config, apply_pending => 1);
}

# PVE::QemuServer::vm_stop.
sub vm_stop($vmid, %options) { lock_config($vmid, sub { do_vm_stop($vmid, %options) }) }

# PVE::QemuServer::vm_reboot: it only asks QEMU to end; that the VM comes again is the business of qm cleanup.
sub vm_reboot($vmid, %options) {
    lock_config($vmid, sub {
        return if !running($vmid);
        write_file("$RUN/$vmid.reboot", '');
        eval { do_vm_stop($vmid, shutdown => 1, %options) };
        if (my $error = $@) {
            unlink("$RUN/$vmid.reboot");
            die $error;
        }
    });
}

# PVE::CLI::qm, cleanup: what qmeventd calls when a QEMU has hung up.
sub qm_cleanup($vmid, $clean, $guest) {
    return 0 if !-f config_path($vmid);
    my $restart;
    warn "Starting cleanup for $vmid\n";
    lock_config($vmid, sub {
        my $config = load_config($vmid);
        if (running($vmid)) {
            die "vm still running\n" if is_legacy();
            die "skipping cleanup - 'backup' lock is present and vm is running again\n" if $clean && ($config->{main}->{lock} // '') eq 'backup';
            die "aborting cleanup, VM is still running after 30 seconds\n" if !gone_within($vmid, 30);
        }
        vm_stop_cleanup($vmid, $config) if !$clean || $guest || !is_legacy();
        exec_hookscript($config->{main}, $vmid, 'post-stop') if is_legacy();
        $restart = unlink("$RUN/$vmid.reboot");
    }, $CLEANUP_WAIT);
    warn "Finished cleanup for $vmid\n";
    return 0 if !$restart;
    warn "Restarting VM $vmid\n";
    return task('qmstart', $vmid, sub { vm_start($vmid) });
}

# PVE::QemuMigrate::phase3_cleanup on the source: the config is with the other node by then, QEMU ends, and no hook runs.
sub migrate($vmid, $node) {
    lock_config($vmid, sub {
        my $config = load_config($vmid);
        mkdir("$PVE/nodes/$_") for $node, "$node/qemu-server";
        rename(config_path($vmid), config_path($vmid, $node)) or die "moving the config failed - $!\n";
        my $pid = running($vmid) // die "VM $vmid not running\n";
        mon_cmd($vmid, 'quit');
        gone_within($vmid, 60) or kill('KILL', $pid);
        vm_stop_cleanup($vmid, $config, skip_hookscript => 1);
    });
}

1;
