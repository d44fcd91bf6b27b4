namespace GpuHandoff.Proxmox;

/// <summary>When Proxmox calls a hookscript (pve-guest-common, GuestHelpers.pm:exec_hookscript).</summary>
public enum HookPhase
{
    /// <summary>Before anything of the start is checked or reserved. The only phase whose exit code counts.</summary>
    PreStart,

    /// <summary>QEMU runs.</summary>
    PostStart,

    /// <summary>Before a stop that may yet fail; not before every end.</summary>
    PreStop,

    /// <summary>QEMU has ended, as a rule. It may come late, twice, or never.</summary>
    PostStop,

    /// <summary>One that this program does not know: of a later Proxmox, and none of our business.</summary>
    Later,
}

/// <summary>One call of the hook.</summary>
/// <param name="MigratedFrom">The node that the VM is on its way from; its configuration lies there still (qemu-server, vm_start).</param>
public sealed record HookCall(int Vm, HookPhase Phase, string? MigratedFrom = null)
{
    static readonly (string Word, HookPhase Phase)[] _phases =
    [
        ("pre-start", HookPhase.PreStart), ("post-start", HookPhase.PostStart), ("pre-stop", HookPhase.PreStop), ("post-stop", HookPhase.PostStop),
    ];

    public static IEnumerable<string> Phases => _phases.Select(p => p.Word);

    /// <summary>
    /// Null: no phase. A start must not fail for a phase that a later Proxmox has more; what looks like one of today's, misspelt,
    /// is a mistake of whoever typed it.
    /// </summary>
    public static HookPhase? PhaseOf(string word)
    {
        foreach (var (known, phase) in _phases)
        {
            if (word == known)
                return phase;
        }
        return (word.StartsWith("pre-", StringComparison.Ordinal) || word.StartsWith("post-", StringComparison.Ordinal))
            && word[^1] != '-' && word.All(c => char.IsAsciiLetterLower(c) || c == '-') && Meant(word) is null
                ? HookPhase.Later
                : null;
    }

    /// <summary>The phase that is nearest to a word; null: none is near.</summary>
    public static string? Meant(string word) => Goals.Spelling.Nearest(word.Replace('_', '-').ToLowerInvariant(), Phases);
}
