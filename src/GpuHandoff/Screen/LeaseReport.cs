using System.Collections.Immutable;
using System.Text;
using System.Text.Json.Serialization;
using GpuHandoff.Formats;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Screen;

/// <summary>A lease for eyes and as data: <c>leases</c>.</summary>
/// <param name="Since">By the clock on the wall; null where the kernel does not tell when it was booted.</param>
/// <param name="Age">In seconds.</param>
/// <param name="Functions">What was lent, with the owner that each had before.</param>
/// <param name="Qemu">QEMU's process; null while it was not seen.</param>
sealed record LeaseReport(
    Guest Vm, PciAddress Gpu, DateTimeOffset? Since, long Age, ImmutableArray<FunctionHome> Functions, int? Qemu, Tenancy State, string Evidence)
{
    /// <summary>What was pinned where.</summary>
    public ImmutableArray<string> Pinned { get; init; } = [];

    /// <summary>Why it did not come home when that was tried the last time.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Trouble { get; init; }

    /// <summary>Nobody tries any more, unless a person asks.</summary>
    public bool GivenUp { get; init; }

    public static LeaseReport Of(Loan loan, IKernel kernel)
    {
        var lease = loan.Lease;
        return new(
            lease.Guest, lease.Gpu, WallClock.At(lease.Since, kernel), (long)(kernel.Uptime - lease.Since).TotalSeconds, lease.Functions,
            lease.Qemu?.Pid, loan.Tenancy, loan.Evidence)
        {
            Pinned = lease.Pinned,
            Trouble = lease.Trouble,
            GivenUp = lease.IsGivenUp(),
        };
    }

    // 0000:05:00.0 is lent to VM 101 since 2026-11-22 21:04:11 (3 h 12 min): running, QEMU runs as process 4711
    //   0000:05:00.0 nvidia, 0000:05:00.1 snd_hda_intel
    public string Text()
    {
        var text = new StringBuilder($"{Gpu} is lent to {PlainText.Line($"{Vm}")}");
        if (Since is { } since)
            text.Append($" since {since.ToLocalTime():yyyy-MM-dd HH:mm:ss}");
        text.Append($" ({Words(TimeSpan.FromSeconds(Age))}): {Word(State)}, {PlainText.Line(Evidence)}\n");
        text.Append("  before: ").AppendJoin(", ", Functions.Select(f => $"{f.Function} {f.Owner}")).Append('\n');
        foreach (var pinned in Pinned)
            text.Append($"  pinned: {PlainText.Line(pinned)}\n");
        if (Trouble is not null)
            text.Append($"  not brought home: {PlainText.Line(Trouble)}{(GivenUp ? "; sudo gpu-handoff reconcile tries again" : "")}\n");
        return text.ToString();
    }

    static string Word(Tenancy state) => state switch
    {
        Tenancy.Running => "running",
        Tenancy.InMotion => "starting or stopping",
        _ => "gone",
    };

    static string Words(TimeSpan age) => age switch
    {
        { TotalMinutes: < 1 } => $"{age.Seconds} s",
        { TotalHours: < 1 } => $"{age.Minutes} min",
        { TotalDays: < 1 } => $"{age.Hours} h {age.Minutes} min",
        _ => $"{age.Days} d {age.Hours} h",
    };
}
