using GpuHandoff.Commands;
using GpuHandoff.Kernel;
using GpuHandoff.Libvirt;
using GpuHandoff.Linux;
using GpuHandoff.Runs;
using GpuHandoff.Screen;

namespace GpuHandoff;

static class Program
{
    static int Main(string[] arguments)
    {
        Signals.HearOfChildren();
        // Before anything else: a hand has one job, and is waited for.
        var call = HookCall.Of(arguments);
        if (call is null && arguments is [Hand.Argument, .. var rest])
            return Hand.Serve(rest);
        // A reader that goes away (a closed task window, head -1) must not end a hand-over halfway.
        Output.IgnoreBrokenPipes();
        try
        {
            // Before the command line comes up: most VMs have no GPU, and shall pay as little for it as can be.
            if (HookCommand.IsCall(arguments))
                return HookCommand.Run(arguments[0], arguments[1]);
            if (arguments is ["hook", var vm, [not '-', ..] phase])
                return HookCommand.Run(vm, phase);
            if (call is not null)
                return LibvirtHook.Answer(call);
            var parsed = Tool.Build().Parse(arguments);
            if (parsed.Errors is [])
                return parsed.Invoke(Tool.Invocation);
            foreach (var error in parsed.Errors)
                Say.Line(error.Message);
            Say.Line("hint: gpu-handoff --help");
            return ExitCode.Usage;
        }
        catch (LedgerRefused refused)
        {
            Say.Refused("ledger", refused.Message, [], refused.Hint, arguments.Contains("--json"));
            return ExitCode.Refused;
        }
        catch (KernelSilent silent)
        {
            Say.Trouble("the kernel does not answer a look", [silent.Message], "something hangs: look at dmesg", "gpu-handoff status shows how it stands");
            return ExitCode.Stuck;
        }
        catch (KernelRefused refused)
        {
            Say.Refused("kernel", refused.Message, [], refused.Hint ?? "look at the kernel log: dmesg | tail", arguments.Contains("--json"));
            return ExitCode.Refused;
        }
    }
}
