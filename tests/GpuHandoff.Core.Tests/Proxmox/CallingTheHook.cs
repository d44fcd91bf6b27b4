using FsCheck;
using FsCheck.Xunit;
using GpuHandoff.Proxmox;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Proxmox;

public class CallingTheHook
{
    [Fact]
    public void The_four_phases_are_known() =>
        HookCall.Phases.Select(word => HookCall.PhaseOf(word)).ShouldBe([HookPhase.PreStart, HookPhase.PostStart, HookPhase.PreStop, HookPhase.PostStop]);

    [Theory]
    [InlineData("pre-migrate")]
    [InlineData("post-backup")]
    [InlineData("post-guest-shutdown")]
    public void A_phase_of_a_later_Proxmox_must_not_fail_a_start(string word) => HookCall.PhaseOf(word).ShouldBe(HookPhase.Later);

    [Theory]
    [InlineData("pre-strat", "pre-start")]
    [InlineData("post_stop", "post-stop")]
    [InlineData("prestart", "pre-start")]
    [InlineData("post-stopp", "post-stop")]
    [InlineData("PRE-START", "pre-start")]
    [InlineData("start", null)]
    [InlineData("", null)]
    [InlineData("pre-", null)]
    [InlineData("pre-Start-2", null)]
    public void What_is_no_phase_is_a_mistake(string word, string? meant)
    {
        HookCall.PhaseOf(word).ShouldBeNull();
        if (meant is not null)
            HookCall.Meant(word).ShouldBe(meant);
    }

    [Property]
    public void Any_word_is_a_phase_a_later_one_or_none(NonNull<string> word) => _ = HookCall.PhaseOf(word.Get);

    /// <summary>Lines as they are, broken, and mixed: whatever a config holds, the hook answers, and refuses or takes a card of the host.</summary>
    [Property(MaxTest = 300)]
    public void Any_configuration_is_answered_without_a_write_before_the_answer(NonNull<string>[] garbage, int[] picks)
    {
        string[] lines =
        [
            "hostpci0: 0000:01:00", "hostpci1: 02:00.1,pcie=1", "hostpci2: mapping=pool", "hostpci3: 0000:0A:00", "hostpci0: mapping=lake", "hostpci15: 99:00",
            "lock: backup", "template: 1", "args: -device vfio-pci,host=0000:02:00.0", "args: vfio-pci host= sysfsdev=/ host=:::", "[PENDING]", "name: x", "#hostpci4: 01:00",
        ];
        var desk = new ProxmoxDesk(Hosts.TwoIdenticalGpus());
        desk.Kernel.Proxmox.Write("101", string.Join('\n', picks.Select(p => lines[(p & int.MaxValue) % lines.Length]).Concat(garbage.Select(g => g.Get)).OrderBy(l => l.Length)));
        desk.Kernel.Proxmox.WriteMappings("pool\n\tmap id=10de:2684,iommugroup=12,node=pve1,path=0000:02:00,subsystem-id=1043:889d\n" + string.Join('\n', garbage.Select(g => g.Get)));
        var errand = desk.Errand(101, "pre-start");
        desk.Writes.ShouldBe(0);
        if (errand is HookErrand.HandOver { Gpus: var gpus })
            gpus.ShouldAllBe(gpu => gpu.ToString() == "0000:01:00.0" || gpu.ToString() == "0000:02:00.0");
    }
}
