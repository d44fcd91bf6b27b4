using GpuHandoff.Goals;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Proxmox;

/// <summary>Case 54: vzdump starts a VM that is off, paused, to back it up.</summary>
public class BackingUp
{
    static readonly string[] _locked = ["hostpci0: 0000:01:00", "lock: backup"];

    [Fact]
    public void A_free_GPU_goes_and_comes_back()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", _locked);
        var before = desk.Desk.Picture();
        desk.ShouldStart("101");
        desk.DriverOf("0000:01:00.0").ShouldBe("vfio-pci");
        desk.Qm.Stop("101");
        desk.ShouldBeHome(before);
    }

    [Fact]
    public void NVIDIAs_own_daemon_steps_aside_as_ever()
    {
        var desk = new ProxmoxDesk(Hosts.TwoGpusPersistenced()).With("101", "hostpci0: 0000:01:00", "lock: backup");
        var before = desk.Desk.Picture();
        desk.Call(101, "pre-start").ShouldBe(0, desk.Words);
        desk.Call(101, "post-stop").ShouldBe(0, desk.Words);
        desk.ShouldBeHome(before);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Nobody_steps_aside_for_a_backup_by_default_whatever_is_said_of_them(bool toldToRestart)
    {
        var desk = new ProxmoxDesk(Hosts.BusyServices()).With("101", _locked);
        if (toldToRestart)
        {
            desk.Policy = Policy.Default with
            {
                Users = UsersPolicy.Default with { Units = Treatment.Restart, Unit = UsersPolicy.Default.Unit.Add("ollama.service", Treatment.Restart) },
            };
        }
        desk.Call(101, "pre-start").ShouldBe(1);
        desk.Words.ShouldContain("ollama");
        desk.Words.ShouldContain("VM 101 (vm101) is started for its backup, and cannot hand 0000:01:00");
        desk.Words.ShouldContain("backup: always");
        desk.Writes.ShouldBe(0);
    }

    [Fact]
    public void With_always_it_is_as_for_every_start()
    {
        var desk = new ProxmoxDesk(Hosts.BusyServices()).With("101", _locked);
        desk.Policy = Policy.Default with { AtBackup = AtBackup.Always, Users = UsersPolicy.Default with { Units = Treatment.Restart } };
        var before = desk.Desk.Picture();
        desk.Call(101, "pre-start").ShouldBe(0, desk.Words);
        desk.Kernel.Unit("ollama.service").State.ShouldBe("inactive");
        desk.Call(101, "post-stop").ShouldBe(0, desk.Words);
        desk.ShouldBeHome(before);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void No_container_is_stopped_for_a_backup_unless_that_is_allowed(bool allowed)
    {
        var desk = new ProxmoxDesk(Hosts.LxcContainers()).With("101", _locked);
        desk.Policy = Policy.Default with
        {
            AtBackup = AtBackup.Always,
            BackupContainers = allowed,
            Users = UsersPolicy.Default with { Containers = Treatment.Restart, Restarted = ["201"] },
        };
        desk.Call(101, "pre-start").ShouldBe(allowed ? 0 : 1, desk.Words);
        desk.Kernel.Container("201").IsRunning.ShouldBe(!allowed);
        if (!allowed)
            desk.Writes.ShouldBe(0);
    }

    [Fact]
    public void With_refuse_the_backup_fails_and_the_GPU_stays()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", _locked);
        desk.Policy = Policy.Default with { AtBackup = AtBackup.Refuse };
        desk.Call(101, "pre-start").ShouldBe(1);
        desk.Words.ShouldContain("the policy hands no GPU over for that");
        desk.Writes.ShouldBe(0);
        desk.With("101", "hostpci0: 0000:01:00").Call(101, "pre-start").ShouldBe(0, desk.Words);
    }

    [Fact]
    public void A_console_on_the_card_is_spared_in_a_backup_and_no_other_start()
    {
        var desk = new ProxmoxDesk(Hosts.NvidiaConsole()).With("101", _locked);
        desk.Call(101, "pre-start").ShouldBe(1);
        desk.Words.ShouldContain("the host's text console is on 0000:01:00");
        desk.Writes.ShouldBe(0);
        desk.With("101", "hostpci0: 0000:01:00").Call(101, "pre-start").ShouldBe(0, desk.Words);
    }

    // Mode stop: qm shutdown --keepActive, and at once the start, all of it under lock: backup. With the new clean-up post-stop comes.
    [Theory]
    [InlineData(AtBackup.Free, AtReboot.Keep)]
    [InlineData(AtBackup.Refuse, AtReboot.Keep)]
    [InlineData(AtBackup.Free, AtReboot.Return)]
    public void A_running_VM_keeps_its_GPU_through_its_backup_every_night(AtBackup backup, AtReboot reboot)
    {
        var desk = new ProxmoxDesk(Hosts.BusyServices()).With("101", "hostpci0: 0000:01:00");
        desk.Policy = Policy.Default with { AtBackup = backup, AtReboot = reboot, Users = UsersPolicy.Default with { Units = Treatment.Restart } };
        var before = desk.Desk.Picture();
        desk.ShouldStart("101");
        var writes = desk.Writes;
        for (var night = 0; night < 2; night++)
        {
            desk.With("101", _locked);
            desk.Qm.ShutdownForBackup("101").ShouldBeNull();
            desk.DriverOf("0000:01:00.0").ShouldBe("vfio-pci");
            desk.ShouldStart("101");
            desk.With("101", "hostpci0: 0000:01:00");
        }
        desk.Writes.ShouldBe(writes);
        desk.Told.ShouldContain("its backup starts it anew");
        desk.Qm.Stop("101");
        desk.ShouldBeHome(before);
    }
}
