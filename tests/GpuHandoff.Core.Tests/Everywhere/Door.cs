using System.Reflection;
using GpuHandoff.Kernel;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Everywhere;

/// <summary>We were killed: nothing of ours runs any more.</summary>
public sealed class Death() : Exception("killed");

/// <summary>
/// The simulated kernel's door as one run of the tool uses it: it adds up what the calls may take, notices a call that does
/// not return and one that is made after it, and closes for good when the run is killed. A proxy, because it treats every
/// call alike, whichever the door has.
/// </summary>
public class Door : DispatchProxy
{
    readonly HashSet<int> _deadlyBefore = [];
    readonly HashSet<int> _deadlyAfter = [];
    SimulatedKernel? _kernel;
    int _calls;
    bool _isDead;

    public static (IKernel Kernel, Door Door) To(SimulatedKernel kernel)
    {
        var proxy = Create<IKernel, Door>();
        var door = (Door)(object)proxy;
        door._kernel = kernel;
        return (proxy, door);
    }

    /// <summary>The calls that did not return.</summary>
    public int Silent { get; private set; }

    public bool WentOnAfterSilence { get; private set; }

    /// <summary>What all calls and pauses since the last <see cref="Mark"/> may have taken.</summary>
    public TimeSpan Budgets { get; private set; }

    public void Mark() => Budgets = TimeSpan.Zero;

    public void DieBefore(int call) => _deadlyBefore.Add(call);

    public void DieAfter(int call) => _deadlyAfter.Add(call);

    /// <summary>The next call is about to be made.</summary>
    public void Begins()
    {
        WentOnAfterSilence |= Silent > 0;
        _calls++;
        if (_deadlyBefore.Contains(_calls))
            Die();
    }

    /// <summary>Before anything is written down: the dead write nothing.</summary>
    /// <param name="byOthers">It is another process that writes.</param>
    public void Check(bool byOthers)
    {
        if (_isDead && !byOthers)
            throw new Death();
    }

    protected override object? Invoke(MethodInfo? targetMethod, object?[]? args)
    {
        if (_isDead)
            throw new Death();
        var before = _calls;
        // The simulator takes a little time of its own for each call.
        Budgets += args!.OfType<TimeSpan>().Aggregate(TimeSpan.FromMilliseconds(5), (sum, budget) => sum + budget);
        try
        {
            return targetMethod!.Invoke(_kernel, BindingFlags.DoNotWrapExceptions, null, args, null);
        }
        catch (KernelSilent)
        {
            Silent++;
            throw;
        }
        finally
        {
            if (_calls > before && _deadlyAfter.Contains(_calls))
                Die();
        }
    }

    void Die()
    {
        _isDead = true;
        throw new Death();
    }
}
