using GpuHandoff.Kernel;

namespace GpuHandoff.Linux;

/// <summary>
/// Many short looks by a few threads, and no waiting for one that does not end. To read a process's mappings takes its
/// memory lock, which it may hold for ever where it is stuck in a driver. That wait gives way to a kill
/// (fs/proc/task_mmu.c:m_start, mmap_read_lock_killable): so, unlike one in an unbind, a thread that is left behind in it
/// ends with us. A look that goes on is waited for, because a big process takes its time; one that does not go on is given up, and
/// stops by itself as soon as it can.
/// </summary>
sealed class Looks(int count, Action<int, Looking> look)
{
    const int MostAtOnce = 4;
    const int MostLeftBehind = 8;

    // Others hold that lock for microseconds, seldom for milliseconds.
    static readonly TimeSpan _patience = TimeSpan.FromMilliseconds(500);

    // However much goes on: what a user's processes can make to look at has no other limit, and a VM's start waits for it.
    static readonly TimeSpan _together = TimeSpan.FromSeconds(20);

    readonly object _news = new();
    readonly List<Looker> _lookers = [];
    readonly List<int> _notDone = [];
    KernelRefused? _refused;
    int _next;

    /// <summary>Makes the looks.</summary>
    /// <returns>Those that did not come to an end.</returns>
    public IReadOnlyList<int> Make()
    {
        lock (_news)
        {
            for (var i = 0; i < Math.Min(Math.Min(Environment.ProcessorCount, MostAtOnce), count); i++)
                Start();
            var began = Environment.TickCount64;
            while (_lookers.Count > 0)
            {
                Monitor.Wait(_news, _patience / 5);
                var isOver = Environment.TickCount64 - began > _together.TotalMilliseconds;
                foreach (var looker in _lookers.FindAll(l => isOver || l.IsStuck(_patience)))
                {
                    looker.IsLeft = true;
                    _lookers.Remove(looker);
                    if (looker.At >= 0)
                        _notDone.Add(looker.At);
                    if (_notDone.Count < MostLeftBehind && !isOver)
                        Start();
                }
            }
            if (_refused is not null)
                throw _refused;
            // So many stuck processes: the rest is left as it is.
            for (; _next < count; _next++)
                _notDone.Add(_next);
            return _notDone;
        }
    }

    void Start()
    {
        var looker = new Looker();
        _lookers.Add(looker);
        new Thread(() => Work(looker)) { IsBackground = true }.Start();
    }

    /// <summary>Under the lock, so that none is begun by a looker that was given up at this moment: it would count as made.</summary>
    int? Next(Looker looker)
    {
        lock (_news)
        {
            if (looker.IsLeft || _next >= count)
                return null;
            looker.Begins(_next);
            return _next++;
        }
    }

    void Work(Looker looker)
    {
        try
        {
            // One that comes back late makes no more: nobody would wait for it.
            while (Next(looker) is { } at)
                look(at, looker);
        }
        catch (KernelRefused refused)
        {
            _refused = refused;
        }
        lock (_news)
        {
            _lookers.Remove(looker);
            Monitor.Pulse(_news);
        }
    }

    sealed class Looker : Looking
    {
        long _since = Environment.TickCount64;
        int _at = -1;
        bool _isLeft;

        public override bool IsGivenUp => IsLeft;

        public override void Proceeds() => Volatile.Write(ref _since, Environment.TickCount64);

        public bool IsLeft
        {
            get => Volatile.Read(ref _isLeft);
            set => Volatile.Write(ref _isLeft, value);
        }

        public int At => Volatile.Read(ref _at);

        public void Begins(int at)
        {
            Volatile.Write(ref _since, Environment.TickCount64);
            Volatile.Write(ref _at, at);
        }

        public bool IsStuck(TimeSpan patience) => At >= 0 && Environment.TickCount64 - Volatile.Read(ref _since) > patience.TotalMilliseconds;
    }
}
