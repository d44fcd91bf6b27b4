using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Plans;

namespace GpuHandoff.Runs;

/// <summary>The locks of one run, always taken in the same order, so that two runs never wait for each other: cards by address, then the modules.</summary>
sealed class Holding(IKernel kernel, ILocks locks, IWitness witness, TimeSpan limit, CancellationToken stop) : IDisposable
{
    static readonly TimeSpan _between = TimeSpan.FromMilliseconds(50);

    readonly Dictionary<PciAddress, ILock> _cards = [];
    readonly TimeSpan _until = kernel.Uptime + limit;
    bool _alone;

    /// <summary>Why not, where a lock could not be had.</summary>
    public Answer.Refused? Refusal { get; private set; }

    /// <summary>Asked where a card's lock is somebody else's: why waiting for it would be in vain; null: it may not be.</summary>
    public Func<PciAddress, Answer.Refused?> IsInVain { get; init; } = _ => null;

    public void Take(IEnumerable<PciAddress> gpus)
    {
        foreach (var gpu in gpus.Distinct().Order())
        {
            if (Wait($"gpu-{gpu}", shared: false, gpu.ToString(), () => IsInVain(gpu)) is not { } card)
                return;
            _cards.Add(gpu, card);
        }
    }

    /// <summary>Lets go of the cards for a while and takes them anew.</summary>
    public void LetOthers(TimeSpan time)
    {
        var gpus = _cards.Keys.ToList();
        Dispose();
        _cards.Clear();
        kernel.Pause(time);
        Take(gpus);
    }

    public bool Has(PciAddress gpu) => _cards.ContainsKey(gpu);

    public void WantsModulesAlone() => _alone = true;

    /// <summary>Alone where nobody else is at work, else together with others who change no module; null: see the refusal.</summary>
    public HeldModules? TakeModules()
    {
        if (Refusal is not null)
            return null;
        if (locks.Try(Turn.Modules, shared: false) is { } alone)
            return new(alone, alone: true);
        return Wait(Turn.Modules, !_alone, "the driver's modules") is { } held ? new(held, _alone) : null;
    }

    ILock? Wait(string name, bool shared, string what, Func<Answer.Refused?>? isInVain = null)
    {
        var (tries, told) = (0, false);
        while (true)
        {
            if (locks.Try(name, shared) is { } held)
                return held;
            if (isInVain?.Invoke() is { } why)
            {
                Refusal = why;
                return null;
            }
            // Who is just ending (a helper process that was told so) is not worth a word.
            tries++;
            var holder = locks.Holder(name);
            if (kernel.Uptime >= _until || stop.IsCancellationRequested)
            {
                Refusal = new(
                    stop.IsCancellationRequested ? "interrupted while it waited for another run" : "another run has not ended",
                    [new("locked", $"{holder} is at work on {what}", [], "wait for it, or look into what it does")]);
                return null;
            }
            if (!told && tries > 1)
                witness.Waits($"waiting for {holder}, which is at work on {what}");
            told = tries > 1;
            kernel.Pause(_between);
        }
    }

    public void Dispose()
    {
        foreach (var card in _cards.Values)
            card.Dispose();
    }
}

/// <summary>The lock on the driver's modules, alone or shared.</summary>
sealed class HeldModules(ILock held, bool alone) : IDisposable
{
    public bool IsAlone() => alone;

    public bool Share() => !alone || held.Share();

    public void Dispose() => held.Dispose();
}
