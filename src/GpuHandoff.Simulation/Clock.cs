namespace GpuHandoff.Simulation;

/// <summary>Time that passes only when somebody waits, and what happens meanwhile.</summary>
sealed class Clock
{
    readonly PriorityQueue<Action, (TimeSpan At, int Order)> later = new();
    int order;

    // A machine that has been up for a while: a zero would hide a missing value.
    public TimeSpan Now { get; private set; } = TimeSpan.FromSeconds(1000);

    public void Later(TimeSpan after, Action action) => later.Enqueue(action, (Now + after, order++));

    public void Advance(TimeSpan time) => AdvanceUntil(Now + time, static () => false);

    /// <summary>Lets time pass until something is true or the time is up; whether it came true.</summary>
    public bool AdvanceUntil(TimeSpan deadline, Func<bool> done)
    {
        while (!done())
        {
            if (later.TryPeek(out var action, out var next) && next.At <= deadline)
            {
                later.Dequeue();
                Now = next.At > Now ? next.At : Now;
                action();
                continue;
            }
            Now = deadline > Now ? deadline : Now;
            return done();
        }
        return true;
    }
}
