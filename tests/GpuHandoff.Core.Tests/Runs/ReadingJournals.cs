using GpuHandoff.Goals;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Runs;

/// <summary>A journal is a format: what an older program wrote, what a power cut left, and what nobody wrote.</summary>
public class ReadingJournals
{
    /// <summary>As version 1 wrote it. This text is never changed: it lies on disks.</summary>
    const string Version1 = """
        {"journal":1,"plan":{"target":"vfio","gpus":["0000:01:00.0"],"summary":"hand 0000:01:00 over to vfio-pci","phases":[{"name":"siblings","steps":[{"step":"rebind","function":"0000:01:00.1","from":{"driver":"snd_hda_intel","only":null},"to":{"driver":"vfio-pci","only":"vfio-pci"}}]},{"name":"release","steps":[{"step":"unload-module","module":"nvidia_uvm","parameters":[]},{"step":"unload-driver","module":"nvidia","parameters":[],"functions":[{"function":"0000:01:00.0","owner":{"driver":"nvidia","only":null}}]}]}],"bootId":"6f1f7a3e","notes":[],"keep":[],"forget":[]}}
        {"begins":0}
        {"ends":0}
        {"begins":1}

        """;

    [Fact]
    public void A_journal_of_version_1_is_read_by_every_later_program()
    {
        var run = JournalText.Read(Version1, "journal").ShouldNotBeNull();
        run.Begun.ShouldBe([0, 1]);
        run.Plan.Target.ShouldBe(Target.Vfio);
        run.Plan.BootId.ShouldBe("6f1f7a3e");
        run.Plan.Steps().Select(s => s.Say()).ShouldBe(
            ["0000:01:00.1: snd_hda_intel → vfio-pci", "unload nvidia_uvm", "aim 0000:01:00.0 at vfio-pci and unload nvidia"]);
    }

    [Fact]
    public void A_journal_that_was_cut_off_anywhere_tells_what_was_whole()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.Faults.Refuse(call => call.Contains("vfio-pci/bind") && call.Contains(".0\""), 5);
        desk.Run(Target.Vfio).ShouldBeOfType<Outcome.RolledBack>();
        var text = desk.Ledger.Diaries.ShouldHaveSingleItem().Value;
        var most = 0;
        for (var length = 0; length < text.Length; length++)
        {
            var run = JournalText.Read(text[..length], "journal");
            most = Math.Max(most, run?.Begun.Length ?? 0);
        }
        most.ShouldBeGreaterThan(3);
        JournalText.Read(text, "journal").ShouldBeNull("it has its end");
    }
}
