using System.Text;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Libvirt;
using GpuHandoff.Linux;
using GpuHandoff.Runs;
using GpuHandoff.Screen;
using GpuHandoff.Survey;
using Microsoft.Win32.SafeHandles;

namespace GpuHandoff.Commands;

/// <summary>
/// What libvirt calls at a domain's start and end, as /etc/libvirt/hooks/qemu.d/gpu-handoff. It has the domain locked and waits:
/// nothing in here may ask libvirt anything. It keeps 1 KB of what a hook that fails says on stderr (util/virerror.h:
/// VIR_ERROR_MAX_LENGTH), so only the reason goes there; the log has the rest. On stdout it takes every word for a new domain.
/// </summary>
static class LibvirtHook
{
    /// <summary>libvirt has the XML ready before it calls. A script in between that forgets to pass it on must not keep the domain locked.</summary>
    static readonly TimeSpan _patience = TimeSpan.FromSeconds(10);

    static readonly Wish _wish = new() { Quiet = true };

    public static int Answer(HookCall call) => call.Moment switch
    {
        Moment.Prepare => Prepare(call),
        Moment.Release => Release(call),
        Moment.Runs => Note(call),
        _ => ExitCode.Done,
    };

    static int Prepare(HookCall call)
    {
        Domain domain;
        try
        {
            domain = Domain.Parse(StandardInput());
        }
        catch (NoDomain none)
        {
            return Unread(call, none.Message, "libvirt gives it to its hook on stdin: a script that calls this one must pass it on");
        }
        if (domain.Name != call.Domain)
            return Unread(call, $"it is the domain {domain.Name}'s", "a script that calls this one must pass on the name and the XML as it got them");
        // Most domains have none, and a look at the bus costs.
        var gpus = domain.Devices is [] ? [] : domain.Gpus(Surveyor.Cards(new LinuxKernel(hand: null)));
        if (gpus is [])
            return ExitCode.Done;
        if (!RootUser.IsUs())
        {
            Say.Refused("not-root", "only root can hand a GPU over", [], "start the domain in the system's libvirt: virsh -c qemu:///system", json: false);
            return ExitCode.Refused;
        }
        return Act(Target.Vfio, (turn, policy, stop) => [turn.Lend(call.Guest(), gpus, policy, stop)]);
    }

    /// <summary>What this domain was lent, whatever its XML says by now. One whose start was refused was lent nothing.</summary>
    static int Release(HookCall call)
    {
        // Nothing was lent to a domain of a user's own libvirt, and only root may look.
        if (!RootUser.IsUs())
            return ExitCode.Done;
        var boot = Surveyor.BootId(new LinuxKernel(hand: null));
        var leases = Place.Ledger(root: null).Leases().Where(l => l.Guest == call.Guest() && l.BootId == boot).ToList();
        return leases is [] ? ExitCode.Done : Act(Target.Host, (turn, policy, stop) => turn.TakeBack([.. leases], policy, stop));
    }

    /// <summary>Never fails: libvirt would kill the domain.</summary>
    static int Note(HookCall call)
    {
        try
        {
            if (RootUser.IsUs())
                RunningDomain.Note(call.Guest(), Place.Ledger(root: null), new LinuxKernel(hand: null));
        }
        catch (Exception e) when (e is LedgerRefused or KernelRefused or KernelSilent)
        {
            Say.Line($"warning: which process the domain {call.Domain} is was not written down: {e.Message}");
        }
        return ExitCode.Done;
    }

    static int Act(Target target, Func<Turn, PolicySet, CancellationToken, IReadOnlyList<Ending>> act)
    {
        using var work = new Work(log => Witness.For(_wish, log));
        if (Policies.For(_wish, target, work.Witness.Refuses) is not { } policy)
            return ExitCode.Refused;
        return work.Tell(act(work.Turn(), policy, work.Stop), json: false) ?? ExitCode.Done;
    }

    static int Unread(HookCall call, string why, string hint)
    {
        Say.Refused("domain-xml", $"the XML of the domain {call.Domain} cannot be read", [why], hint, json: false);
        return ExitCode.Refused;
    }

    /// <summary>All of stdin, or one byte more than there may be.</summary>
    /// <exception cref="NoDomain">It does not end, or is no text.</exception>
    static string StandardInput()
    {
        var reading = Task.Run(() =>
        {
            var bytes = new MemoryStream();
            try
            {
                // System.Console looks at more than it is asked for, as Output says.
                using var input = new FileStream(new SafeFileHandle(0, ownsHandle: false), FileAccess.Read, bufferSize: 0);
                var part = new byte[16 * 1024];
                // One byte more than there may be, so that it can be told.
                while (bytes.Length <= Domain.Longest && input.Read(part) is > 0 and var count)
                    bytes.Write(part, 0, count);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
            {
                // No stdin at all: nothing was read.
            }
            return bytes;
        });
        if (!reading.Wait(_patience))
            throw new NoDomain($"stdin has not ended within {_patience.TotalSeconds:0} s");
        try
        {
            return new UTF8Encoding(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true)
                .GetString(reading.Result.GetBuffer(), 0, (int)reading.Result.Length);
        }
        catch (DecoderFallbackException)
        {
            throw new NoDomain("it is no UTF-8");
        }
    }
}
