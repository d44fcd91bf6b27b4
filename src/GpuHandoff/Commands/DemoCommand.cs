using System.CommandLine;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Linux;
using GpuHandoff.Plans;
using GpuHandoff.Runs;
using GpuHandoff.Screen;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;

namespace GpuHandoff.Commands;

/// <summary>The main job in ten seconds, on a simulated host: the same planner and executor as on a real one.</summary>
static class DemoCommand
{
    public static Command Build()
    {
        var command = new Command("demo", "Show a hand-over, its return and a failure rolled back, on a simulated host (no root, no GPU)");
        command.SetAction(_ => new Show(Hosts.SingleGpu(), new MemoryLedger()).Run());
        return command;
    }

    sealed class Show(SimulatedKernel kernel, MemoryLedger ledger)
    {
        public int Run()
        {
            Title("A simulated host with one RTX 4090 on nvidia. No root, no GPU, nothing real is touched.");
            Status();

            Title("gpu-handoff to_vfio: a VM is about to start.");
            var first = HandOver(Target.Vfio);
            Status();

            Title("gpu-handoff to_vfio, once more: twice is safe.");
            var twice = HandOver(Target.Vfio);

            Title("gpu-handoff to_nvidia: the VM has stopped.");
            var back = HandOver(Target.Host);
            Status();

            Title("gpu-handoff to_vfio, but now the kernel refuses to give the GPU to vfio-pci.");
            var home = kernel.Describe();
            kernel.Faults.Refuse(call => call.Contains("vfio-pci/bind") && call.Contains(".0\""), Errno.InputOutput);
            var failed = HandOver(Target.Vfio);
            Status();

            var unchanged = kernel.Describe() == home;
            Title(unchanged
                ? "Rolled back: drivers, overrides, modules and device nodes are as they were before."
                : "The demo's host is not as it was before: this is a bug.");
            var asPromised = first is Outcome.Done && twice is Outcome.Done { Changes: 0 } && back is Outcome.Done
                && failed is Outcome.RolledBack && unchanged;
            return asPromised ? ExitCode.Done : ExitCode.Stuck;
        }

        Outcome? HandOver(Target target)
        {
            var machine = Surveyor.Survey(kernel, ledger.Homes(), target);
            var gpus = ((Selection.Chosen)Selection.Of(machine, null)).Gpus;
            if (Planner.Plan(machine, new(target, gpus), Policy.Default) is not Answer.Planned { Plan: var plan })
                return null;
            var witness = new Witness(Output.Standard, steps: true, quiet: false, live: false);
            witness.Begins(plan);
            var outcome = new Executor(kernel, ledger, witness, Limits.Default).Run(plan, CancellationToken.None);
            witness.Ends(plan, outcome);
            return outcome;
        }

        void Status()
        {
            foreach (var function in Surveyor.Glance(kernel))
                Say.Line($"{function.Address} driver={function.Owner.Driver}", Output.Standard);
        }

        static void Title(string text) => Output.Standard.Write($"\n# {text}\n");
    }
}
