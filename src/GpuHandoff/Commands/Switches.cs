using System.Collections.Immutable;
using System.CommandLine;
using GpuHandoff.Goals;

namespace GpuHandoff.Commands;

/// <summary>What a user said on the command line of a hand-over or its plan.</summary>
sealed record Wish
{
    public string? Gpu { get; init; }

    /// <summary>What the command line says of the policy, to be laid over what the files say.</summary>
    public ImmutableArray<Setting> Flags { get; init; } = [];

    public bool DryRun { get; init; }

    public bool Json { get; init; }

    public bool Quiet { get; init; }

    public bool Verbose { get; init; }

    public DirectoryInfo? Root { get; init; }
}

/// <summary>The switches of a hand-over, and those of them that a look needs.</summary>
sealed class Switches
{
    readonly Option<string?> _gpu = Options.Gpu();
    readonly Option<FreeBy?> _by = Options.By();
    readonly Option<Machines.PciAddress[]> _accept = Options.Accept();
    readonly Option<bool> _claim = Options.Claim();
    readonly Option<bool> _reset = Options.Reset();
    readonly Option<bool> _allowRescan = Options.AllowRescan();
    readonly Option<ulong?> _bar1 = Options.Bar1();
    readonly Option<bool> _stopUsers = Options.StopUsers();
    readonly Option<bool> _loseConsole = Options.LoseConsole();
    readonly Option<bool> _json = Options.Json();
    readonly Option<bool> _quiet = Options.Quiet();
    readonly Option<bool> _verbose = Options.Verbose();
    readonly Option<bool> _dryRun = Options.DryRun();
    readonly Option<TimeSpan?> _timeout = Options.Timeout();
    readonly Option<TimeSpan?> _callTimeout = Options.CallTimeout();
    readonly Option<TimeSpan?> _wait = Options.Wait();
    readonly Option<DirectoryInfo?> _root = Options.Root();

    public void AddLookingTo(Command command)
    {
        foreach (var option in new Option[] { _gpu, _by, _accept, _stopUsers, _loseConsole, _claim, _reset, _allowRescan, _bar1, _json, _root })
            command.Options.Add(option);
        command.Validators.Add(RestartIds.Check);
    }

    /// <summary>Those of a command that changes something.</summary>
    /// <param name="leaves">Whether the GPU may leave the host with it: on its way back nobody is in the way.</param>
    public void AddActingTo(Command command, bool leaves)
    {
        var options = new Option[]
        {
            _gpu, _by, _accept, _stopUsers, _loseConsole, _claim, _reset, _allowRescan, _bar1, _dryRun, _timeout, _callTimeout, _wait, _json, _quiet, _verbose,
        };
        foreach (var option in options.Where(o => leaves || (o != _stopUsers && o != _loseConsole)))
            command.Options.Add(option);
        if (leaves)
            command.Validators.Add(RestartIds.Check);
    }

    public Wish Read(ParseResult parsed)
    {
        return new()
        {
            Gpu = parsed.GetValue(_gpu),
            Flags = Flags(parsed),
            DryRun = Is(parsed, _dryRun),
            Json = Is(parsed, _json),
            Quiet = Is(parsed, _quiet),
            Verbose = Is(parsed, _verbose),
            Root = Has(parsed, _root) ? parsed.GetValue(_root) : null,
        };
    }

    ImmutableArray<Setting> Flags(ParseResult parsed)
    {
        var flags = ImmutableArray.CreateBuilder<Setting>();
        // Only what was said: what was not, the files say, or nobody.
        void Add<T>(Option<T> option, string key, Func<Policy, T, Policy> lay)
        {
            if (Has(parsed, option) && parsed.GetResult(option) is { Implicit: false } && parsed.GetValue(option) is { } value)
                flags.Add(new(key, new(option.Name, 0), policy => lay(policy, value)));
        }

        Add(_by, "free-by", (policy, by) => policy with { By = by!.Value });
        Add(_accept, "accept-neighbours", (policy, accepted) => policy with { Accepted = [.. accepted] });
        Add(_claim, "claim", (policy, claim) => policy with { Claim = claim });
        Add(_stopUsers, "users", (policy, stop) => stop ? policy with { Users = policy.Users.Everybody() } : policy);
        Add(_loseConsole, "lose-console", (policy, lose) => policy with { LoseConsole = lose });
        Add(_reset, "reset-first", (policy, reset) => policy with { ResetFirst = reset });
        Add(_allowRescan, "resets", (policy, allow) => allow ? policy with { Resets = [.. policy.Resets.Union([Machines.Rung.Rescan])] } : policy);
        Add(_bar1, "bar1-size", (policy, size) => policy with { Bar1 = size });
        Add(_timeout, "limits.total", (policy, total) => policy with { Limits = policy.Limits with { Total = total!.Value } });
        Add(_callTimeout, "limits.call", (policy, call) => policy with { Limits = policy.Limits with { Write = call!.Value, Module = call.Value } });
        Add(_wait, "wait", (policy, wait) => policy with { Patience = wait!.Value });
        if (RestartIds.Said() is { Length: > 0 } ids)
            flags.Add(new("users.container", new(RestartIds.Name, 0), policy => policy with { Users = policy.Users with { Restarted = ids } }));
        return flags.ToImmutable();
    }

    static bool Is(ParseResult parsed, Option<bool> option) => Has(parsed, option) && parsed.GetValue(option);

    /// <summary>A look has fewer switches than an act.</summary>
    static bool Has(ParseResult parsed, Option option) => parsed.CommandResult.Command.Options.Contains(option);
}
