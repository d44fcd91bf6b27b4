using System.CommandLine;
using GpuHandoff.Goals;

namespace GpuHandoff.Commands;

/// <summary>What a user said on the command line of a hand-over or its plan.</summary>
sealed record Wish(string? Gpu, Policy Policy, bool DryRun, bool Json, bool Quiet, bool Verbose, DirectoryInfo? Root);

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
    }

    public Wish Read(ParseResult parsed)
    {
        var policy = new Policy
        {
            By = parsed.GetValue(_by) ?? FreeBy.Auto,
            Accepted = [.. parsed.GetValue(_accept) ?? []],
            Claim = parsed.GetValue(_claim),
            StopUsers = Is(parsed, _stopUsers),
            LoseConsole = Is(parsed, _loseConsole),
            ResetFirst = parsed.GetValue(_reset),
            Resets = parsed.GetValue(_allowRescan) ? [.. Policy.Default.Resets, Machines.Rung.Rescan] : Policy.Default.Resets,
            Bar1 = parsed.GetValue(_bar1),
            Limits = LimitsOf(parsed),
            Patience = Has(parsed, _wait) && parsed.GetValue(_wait) is { } wait ? wait : Policy.Default.Patience,
        };
        return new(
            parsed.GetValue(_gpu), policy, Is(parsed, _dryRun), Is(parsed, _json), Is(parsed, _quiet), Is(parsed, _verbose),
            Has(parsed, _root) ? parsed.GetValue(_root) : null);
    }

    Limits LimitsOf(ParseResult parsed)
    {
        var limits = Limits.Default;
        if (Has(parsed, _timeout) && parsed.GetValue(_timeout) is { } total)
            limits = limits with { Total = total };
        if (Has(parsed, _callTimeout) && parsed.GetValue(_callTimeout) is { } call)
            limits = limits with { Write = call, Module = call };
        return limits;
    }

    static bool Is(ParseResult parsed, Option<bool> option) => Has(parsed, option) && parsed.GetValue(option);

    /// <summary>A look has fewer switches than an act.</summary>
    static bool Has(ParseResult parsed, Option option) => parsed.CommandResult.Command.Options.Contains(option);
}
