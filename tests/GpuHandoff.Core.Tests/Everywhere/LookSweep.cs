using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Everywhere;

/// <summary>
/// A user that opens a function before any single look of a run, the last one included, and keeps it open: what an earlier look
/// has shown is old by then. The run is refused, rolled back, or was done already; none ever waits inside the kernel.
/// </summary>
public class LookSweep
{
    /// <summary>Hosts with old and new drivers, where other GPUs stay at work (counts say nothing) and where none do.</summary>
    public static TheoryData<string, Target, FreeBy> Cases()
    {
        var cases = new TheoryData<string, Target, FreeBy>();
        foreach (var host in new[]
        {
            "single-gpu", "single-gpu-580-modeset", "single-gpu-595", "two-identical-gpus", "two-identical-gpus-modeset", "two-identical-gpus-595",
            "four-functions", "two-gpus-persistenced-alone",
        })
        {
            foreach (var target in new[] { Target.Vfio, Target.Host })
                cases.Add(host, target, FreeBy.Unbind);
        }
        cases.Add("single-gpu", Target.Vfio, FreeBy.Unload);
        cases.Add("four-functions", Target.Vfio, FreeBy.Unload);
        return cases;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_user_that_comes_before_any_look_never_makes_a_run_wait_for_ever(string host, Target target, FreeBy way)
    {
        var (probe, first) = Start(host, target, way);
        probe.HandOver(target, FaultSweep.Gpu(probe), Of(way)).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>();
        var looks = probe.Kernel.Looks - first;
        var (ended, came) = (new Dictionary<string, int>(), 0);
        for (var look = 1; look <= looks; look++)
        {
            foreach (var kind in Enum.GetValues<Opener>())
            {
                var (desk, begin) = Start(host, target, way);
                var before = desk.Picture();
                SimulatedProcess? visitor = null;
                desk.Kernel.Faults.BeforeLook(begin + look, kernel => visitor = Open(kernel, kind));

                var ending = desk.HandOver(target, FaultSweep.Gpu(desk), Of(way));

                if (visitor is null)
                    continue;
                came++;
                var told = $"{host} {target} {way}, {kind} before look {look} of {looks}\n{desk.Memo}";
                var outcome = (ending as Ending.Ran)?.Outcome;
                ending.ShouldNotBeOfType<Ending.Unanswered>(told);
                (outcome is Outcome.Stuck { Silent: true }).ShouldBeFalse(told);
                desk.Kernel.Hazards.ShouldBeEmpty(told);
                var how = outcome?.GetType().Name ?? ending.GetType().Name;
                ended[how] = ended.GetValueOrDefault(how) + 1;
                // With the visitor gone all is as it was, where it was not done.
                if (outcome is Outcome.RolledBack || ending is Ending.Refused)
                {
                    desk.Kernel.EndProcess(visitor);
                    desk.Picture().ShouldBe(before, told);
                }
            }
        }
        came.ShouldBeGreaterThan(looks / 2, "a sweep without visitors shows nothing");
        Evidence.Record(
            "a user opens the GPU, its sound card or its IOMMU group before any single look of a run, the last one before an unbind included",
            "refused, or undid all (exit 3), or was done before it mattered; no unbind was begun with a user",
            "who has it open, or the count that shows a user",
            string.Join(", ", ended.OrderBy(e => e.Key, StringComparer.Ordinal).Select(e => $"{e.Value} {e.Key}")));
    }

    enum Opener
    {
        Gpu,
        Sound,
        HiddenSound,
        Vm,
    }

    static SimulatedProcess? Open(SimulatedKernel kernel, Opener kind)
    {
        var process = kernel.StartProcess("visitor");
        try
        {
            switch (kind)
            {
                // Through a node of a container's: that on the host may be gone.
                case Opener.Gpu:
                    kernel.OpenNode(new DeviceNode(195, 0, 0x1b6, 100000, 100000), "/dev/nvidia0", process);
                    return process;
                case Opener.Sound or Opener.HiddenSound when kernel.Device("0000:01:00.1").Driver == "snd_hda_intel":
                    var open = kernel.OpenNode(kernel.List(Sys.Function(new(0, 1, 0, 1)) / "sound").Select(card => $"/dev/snd/controlC{card[4..]}").First(), process);
                    if (kind == Opener.HiddenSound)
                        open.PutInFlight();
                    return process;
                case Opener.Vm:
                    var functions = kernel.Devices.Where(d => d.Driver == Owner.Vfio && d.Address.Bus == 1).Select(d => d.Address).ToList();
                    return functions is [] ? null : kernel.StartVm("vm", functions).Process;
                default:
                    return null;
            }
        }
        catch (Exception refused) when (refused is KernelRefused or InvalidOperationException)
        {
            // Nothing to open at this moment.
            return null;
        }
    }

    static Policy Of(FreeBy way) => FaultSweep.Of(way) with { Patience = TimeSpan.FromSeconds(1) };

    static (Desk Desk, int Looks) Start(string host, Target target, FreeBy way)
    {
        var desk = FaultSweep.Start(host, target, way).ShouldNotBeNull();
        return (desk, desk.Kernel.Looks);
    }
}
