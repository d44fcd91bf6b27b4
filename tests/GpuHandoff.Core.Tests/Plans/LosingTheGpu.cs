using System.Reflection;
using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Plans;

/// <summary>A GPU that has fallen off the bus is told as such each time, and one that is well is not woken to find out.</summary>
public class LosingTheGpu
{
    static readonly PciAddress _gpu = new(0, 1, 0, 0);

    static int Exit(Ending ending) => ending switch
    {
        Ending.Refused { Why: var why } => ExitCode.Of(why),
        Ending.Ran { Outcome: var outcome } => ExitCode.Of(outcome),
        _ => throw new InvalidOperationException($"{ending}"),
    };

    [Fact]
    public void A_return_that_loses_the_gpu_ends_with_4_and_so_do_the_next_ones_which_bind_nothing()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        desk.Kernel.FailProbe("nvidia", _gpu, Errno.NotPermitted);
        desk.Kernel.WhenReset = (function, _) => desk.Kernel.LoseDevice(function);
        Exit(desk.HandOver(Target.Host)).ShouldBe(ExitCode.Stuck, desk.Memo.ToString());

        foreach (var target in new[] { Target.Host, Target.Vfio, Target.Host })
        {
            var calls = desk.Kernel.Calls.Count;
            var again = desk.HandOver(target).ShouldBeOfType<Ending.Refused>(desk.Memo.ToString());
            again.Why.Findings.ShouldContain(f => f.Code == "gpu-is-lost" && f.Evidence.SequenceEqual(new[] { $"the vendor ID of {_gpu} reads ffff" }));
            Exit(again).ShouldBe(4);
            // What that run left is taken back as far as it goes.
            desk.Kernel.Calls.Skip(calls).ShouldAllBe(call => !call.Contains("/bind"));
        }
    }

    [Fact]
    public void One_that_was_lost_on_vfio_pci_is_touched_by_nothing()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        desk.Kernel.LoseDevice(_gpu);
        var (calls, turn) = (desk.Kernel.Calls.Count, desk.Turn());
        Exit(turn.HandOver(Target.Host, null, Policy.Default, CancellationToken.None)).ShouldBe(ExitCode.Stuck);
        (desk.Kernel.Calls.Count, turn.Footprint.Count).ShouldBe((calls, 0));
    }

    [Fact]
    public void The_timer_tells_it_once_and_leaves_it_to_a_person()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Turn().Lend(new(VmManager.Proxmox, "101"), [_gpu], Policy.Default, CancellationToken.None);
        desk.Kernel.LoseDevice(_gpu);

        var told = desk.Turn(9001).MakeRounds(Policy.Default, waits: false, CancellationToken.None).ShouldHaveSingleItem();

        Exit(told).ShouldBe(ExitCode.Stuck);
        desk.Ledger.Leases().ShouldHaveSingleItem().IsGivenUp().ShouldBeTrue();
        desk.Turn(9001).MakeRounds(Policy.Default, waits: false, CancellationToken.None).ShouldBeEmpty();
        Turn.IsAllWell(desk.Kernel, desk.Ledger, waits: false).ShouldBeTrue();
    }

    [Fact]
    public void A_gpu_under_nvidia_or_with_a_vm_or_that_nobody_asked_for_is_not_woken_by_a_read()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus(new("580.126.20")));
        var (kernel, reads) = ConfigReads.Of(desk.Kernel);
        Ending HandOver(Target target) => desk.Turn(through: kernel).HandOver(
            target, "01:00", Policy.Default with { Patience = TimeSpan.Zero, By = FreeBy.Unbind }, CancellationToken.None);
        desk.Run(Target.Vfio, "02:00", Policy.Default with { By = FreeBy.Unbind }).ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());

        Exit(HandOver(Target.Vfio)).ShouldBe(0, desk.Memo.ToString());
        // vfio-pci was bound to it once it had no driver, and that looks.
        reads.Files.ShouldAllBe(file => file.Contains("01:00"));
        reads.Files.Clear();
        var vm = desk.Kernel.StartVm("101", [_gpu, _gpu with { Function = 1 }]);
        Exit(HandOver(Target.Host)).ShouldBe(ExitCode.Refused);
        reads.Files.ShouldBeEmpty();

        desk.Kernel.StopVm(vm);
        Exit(HandOver(Target.Host)).ShouldBe(0, desk.Memo.ToString());
        reads.Files.ShouldNotBeEmpty();
        reads.Files.Clear();
        Exit(HandOver(Target.Host)).ShouldBe(0);
        reads.Files.ShouldBeEmpty();
    }
}

/// <summary>A kernel that notes whose config space is read.</summary>
public class ConfigReads : DispatchProxy
{
    IKernel? _kernel;

    public List<string> Files { get; } = [];

    public static (IKernel Kernel, ConfigReads Reads) Of(IKernel kernel)
    {
        var proxy = Create<IKernel, ConfigReads>();
        var reads = (ConfigReads)(object)proxy;
        reads._kernel = kernel;
        return (proxy, reads);
    }

    protected override object? Invoke(MethodInfo? targetMethod, object?[]? args)
    {
        if (targetMethod!.Name == nameof(IKernel.ReadBytes))
            Files.Add($"{args![0]}");
        return targetMethod.Invoke(_kernel, BindingFlags.DoNotWrapExceptions, null, args, null);
    }
}
