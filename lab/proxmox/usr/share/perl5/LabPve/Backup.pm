# vzdump.
package LabPve::Backup;
use v5.36;
use Exporter 'import';
use LabPve::Machine;
use LabPve::Config;
use LabPve::Qemu;
use LabPve::LifeCycle;

our @EXPORT = qw(vzdump);

# What a case may ask for: how long a storage takes to be there for the copy.
my $STORAGE_TAKES = $ENV{LAB_PVE_STORAGE_TAKES} // 0;

# PVE::VZDump::exec_backup_task with PVE::VZDump::QemuServer. A VM that is off is started, paused, for the time of the backup; one
# that runs is copied as it runs, or (mode stop) shut down first and let run again as soon as the copy has begun.
sub vzdump($vmid, %options) {
    my $was_running = running($vmid);
    my $mode = $was_running ? $options{mode} // 'snapshot' : 'stop';
    my $restart;
    set_lock($vmid, 'backup');                                                                  # lock_vm
    my $good = eval {
        print "INFO: backup mode: $mode\n";
        if ($was_running && $mode eq 'stop') {
            print "INFO: stopping virtual guest\n";                                             # stop_vm
            run_command(['/usr/sbin/qm', 'shutdown', $vmid, '--skiplock', '--keepActive', '--timeout', 600]);
            $restart = 1;
        }
        pause($STORAGE_TAKES);
        archive($vmid, $was_running);
        1;
    };
    my $error = $@;
    set_lock($vmid, undef);                                                                     # unlock_vm
    if ($restart && !running($vmid)) {
        print "INFO: restarting vm\n";                                                          # start_vm
        run_command(['/usr/sbin/qm', 'start', $vmid, '--skiplock'], noerr => 1);
    }
    die "ERROR: Backup of VM $vmid failed - $error" if !$good;
}

# PVE::VZDump::QemuServer::archive_vma: the VM goes on running as soon as QEMU keeps what it is about to overwrite.
sub archive($vmid, $was_running) {
    if (!running($vmid)) {                                                                      # enforce_vm_running_for_backup
        print "INFO: starting kvm to execute backup task\n";
        vm_start($vmid, skiplock => 1, skiptemplate => 1, paused => 1);
    }
    print "INFO: started backup task: " . mon_cmd($vmid, 'query-block') . "\n";                 # here it would save the disks
    if ($was_running) {
        print "INFO: resuming VM again\n";                                                      # resume_vm_after_job_start
        mon_cmd($vmid, 'cont');
    } elsif (mon_cmd($vmid, 'query-status') =~ /"status": ?"prelaunch"/) {                      # restore_vm_power_state
        print "INFO: stopping kvm after backup task\n";
        vm_stop($vmid, skiplock => 1);
    }
}

1;
