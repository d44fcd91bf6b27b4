using FsCheck.Xunit;
using GpuHandoff.Core.Tests.Everywhere;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Proxmox;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Proxmox;

/// <summary>attach and detach where calls fail, where they are killed, and on configurations that nobody would write.</summary>
public class SettingUpAmongFaults : SetUpDesk
{
    [Fact]
    public void Any_call_that_is_refused_or_ignored_leaves_all_as_before_or_all_done()
    {
        Action<Faults, int>[] faults = [(f, n) => f.Refuse(n, Errno.InputOutput), (f, n) => f.Ignore(n), (f, n) => f.RefuseAfterwards(n, Errno.InputOutput)];
        var seen = 0;
        foreach (var detaching in new[] { false, true })
        {
            foreach (var arm in faults)
            {
                for (var call = 1; call <= 3; call++)
                {
                    var node = new SetUpDesk();
                    if (detaching)
                        node.Attach();
                    var (before, records) = (node.Kernel.Files.Describe(), node.Records.All().Length);
                    arm(node.Kernel.Faults, node.Kernel.Calls.Count + call);

                    var outcome = (detaching ? node.Detach() : node.Attach()).ShouldBeOfType<Ending.Ran>().Outcome;

                    var told = $"detaching {detaching}, call {call}\n{node.Desk.Memo}";
                    if (outcome is Outcome.Done)
                    {
                        ChangesOrNothing(node, detaching).ShouldBe(0, told);
                        continue;
                    }
                    outcome.ShouldBeOfType<Outcome.RolledBack>(told);
                    node.Kernel.Files.Describe().ShouldBe(before, told);
                    node.Records.All().Length.ShouldBe(records, told);
                    seen++;
                }
            }
        }
        seen.ShouldBeGreaterThan(9);
    }

    static int ChangesOrNothing(SetUpDesk node, bool detaching) => detaching ? node.Records.All().Length : ChangesOf(node.Attach());

    [Fact]
    public void Killed_at_any_call_it_is_taken_back_by_detach_and_completed_by_attach()
    {
        var (life, dies) = (0, true);
        for (; dies; life++)
        {
            foreach (var back in new[] { true, false })
            {
                var node = new SetUpDesk();
                var before = node.Kernel.Files.Describe();
                dies = Mortal.Dies(node.Desk, life, mortal => node.SetUp(mortal, pid: 666).Attach(new(101), Policy.Default, CancellationToken.None));

                if (!back)
                {
                    node.Attach().ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>();
                    node.Config().ShouldContain("hookscript: ");
                }
                if (node.Records.All() is not [])
                    node.Detach().ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>();
                node.Kernel.Files.Describe().ShouldBe(before, $"killed after {life}, taken back at once: {back}");
                node.Records.All().ShouldBeEmpty();
            }
        }
        life.ShouldBeGreaterThan(3);
    }

    [Fact]
    public void What_qm_refuses_is_told_in_its_own_words_and_taken_back()
    {
        var before = Kernel.Files.Describe();
        // Proxmox's task takes the lock between our look and our call.
        Kernel.Faults.Before(c => c.StartsWith("/usr/sbin/qm", StringComparison.Ordinal), kernel => kernel.Proxmox.Write("101", Windows + "lock: backup\n"));

        var outcome = Attach().ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.RolledBack>();

        outcome.Cause!.Reason.ShouldContain("VM is locked (backup)");
        Kernel.Proxmox.Write("101", Windows);
        Kernel.Files.Describe().ShouldBe(before);
        Records.All().ShouldBeEmpty();
    }

    /// <summary>Lines as they are, broken, and mixed: whatever a configuration holds, attach answers, and detach leaves it as it was.</summary>
    [Property(MaxTest = 200)]
    public void Any_configuration_is_refused_untouched_or_is_after_a_detach_what_it_was(FsCheck.NonNull<string>[] garbage, int[] picks)
    {
        string[] lines =
        [
            "hostpci0: 0000:01:00", "hostpci1: 02:00.1,pcie=1", "hostpci2: mapping=pool", "hostpci3: 0000:0A:00", "hostpci15: 99:00", "lock: backup", "template: 1",
            "hookscript: local:snippets/gpu-handoff", "hookscript: nas:snippets/x", "machine: q35", "args: vfio-pci host=:::", "[PENDING]", "delete: hostpci0", "name: x", "#hostpci4: 01:00",
        ];
        var node = new SetUpDesk();
        node.Kernel.Proxmox.Write("101", string.Join('\n', picks.Select(p => lines[(p & int.MaxValue) % lines.Length]).Concat(garbage.Select(g => g.Get)).OrderBy(l => l.Length)));
        node.Kernel.Proxmox.WriteStorages(string.Join('\n', garbage.Select(g => g.Get)));
        var (before, was) = (node.Kernel.Files.Describe(), VmLines.Parse(node.Config()));

        if (node.Attach() is Ending.Refused)
        {
            node.Kernel.Files.Describe().ShouldBe(before);
            return;
        }
        if (node.Records.All() is not [])
            ChangesOf(node.Detach()).ShouldBeGreaterThan(0);
        var now = VmLines.Parse(node.Config());
        foreach (var key in Enumerable.Range(0, HostPci.Most).Select(n => $"hostpci{n}").Append("hookscript"))
            now.Next(key).ShouldBe(was.Next(key), key);
        node.Records.All().ShouldBeEmpty();
    }
}
