namespace GpuHandoff.Kernel;

/// <summary>What there is at a path.</summary>
public enum FileKind
{
    File,
    Folder,
    Link,
    Other,
}

/// <summary>What there is at a path, whose it is, and who may write it.</summary>
/// <param name="Mode">The permissions alone: <c>0o755</c>.</param>
public sealed record FileStatus(FileKind Kind, uint Owner, uint Mode)
{
    const uint AnybodyRuns = 0x49;
    const uint OthersWrite = 0x12;

    /// <summary>A file with an executable bit, whoever's: what Perl's -f and -x are for root.</summary>
    public bool IsRunnable() => Kind == FileKind.File && (Mode & AnybodyRuns) != 0;

    /// <summary>Why root should not go by it; null: only root may write it.</summary>
    /// <remarks>An access list that lets others write shows in the group's bits, which are its mask then (acl(5)).</remarks>
    public string? WhyNotTrusted() =>
        Owner != 0 ? $"belongs to user {Owner}"
        // A link's own mode says nothing; whoever may write its folder may change it.
        : Kind != FileKind.Link && (Mode & OthersWrite) != 0 ? $"can be written by others than root (mode 0{Convert.ToString(Mode, 8)})"
        : null;
}

/// <summary>Whether what lies at a path is root's word.</summary>
public static class Trust
{
    /// <summary>What on the way to a path others than root could change; null: nothing. What is not there is nobody's.</summary>
    public static string? WhyNot(SysPath path, IKernel kernel)
    {
        var here = "";
        foreach (var part in path.Text.Split('/', StringSplitOptions.RemoveEmptyEntries).Prepend(""))
        {
            here = part is "" ? "" : $"{here}/{part}";
            var name = here is "" ? "/" : here;
            if (kernel.StatusOf(new(name))?.WhyNotTrusted() is { } why)
                return $"{name} {why}";
        }
        return null;
    }
}
