using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Linux.Interop;
using GpuHandoff.Runs;
using GpuHandoff.Survey;

namespace GpuHandoff.Linux;

/// <summary>Locks as flock(2) on files below /run/gpu-handoff.</summary>
/// <param name="hand">
/// Takes a lock of its own with each card's: should we be killed, its last call goes on, and nobody may recover the card
/// before that has ended.
/// </param>
public sealed class FileLocks(IKernel kernel, string folder, Hand? hand = null) : ILocks
{
    const string Card = "gpu-";
    const string Call = "call-";

    readonly RootFolder _folder = new(folder);
    readonly HashSet<string> _posted = new(StringComparer.Ordinal);

    public ILock? Try(string name, bool shared)
    {
        _folder.Make();
        var path = PathOf(name);
        var file = Libc.Open(path, Libc.ReadWrite | Libc.CreateIt | Libc.CloseOnExec | Libc.NoLink, 0x180);
        if (file < 0)
            throw Refused(path, Libc.LastError());
        if (Flock(file, (shared ? Libc.LockShared : Libc.LockAlone) | Libc.LockNow))
        {
            if (name.StartsWith(Card, StringComparison.Ordinal) && hand is not null && !HandHolds(PathOf(Call + name)))
            {
                Free(file);
                return null;
            }
            return new Held(file, path);
        }
        var errno = Libc.LastError();
        _ = Libc.Close(file);
        return errno == Errno.TryAgain ? null : throw Refused(path, errno);
    }

    /// <summary>The processes that the kernel lists as its holders.</summary>
    public string Holder(string name) => HolderOf(name) ?? HolderOf(Call + name) ?? "another run";

    /// <summary>
    /// Has the hand take a lock of its own, which it does as soon as it is up. Nobody else comes in between: only a hand whose
    /// run had the card's lock, as we have it now, ever takes it, and one that was left behind has it already.
    /// </summary>
    bool HandHolds(string path)
    {
        if (_posted.Contains(path))
            return true;
        var file = Libc.Open(path, Libc.ReadWrite | Libc.CreateIt | Libc.CloseOnExec | Libc.NoLink, 0x180);
        if (file < 0)
            throw Refused(path, Libc.LastError());
        var free = Flock(file, Libc.LockAlone | Libc.LockNow);
        var errno = Libc.LastError();
        Free(file);
        if (!free)
            return errno == Errno.TryAgain ? false : throw Refused(path, errno);
        hand!.Hold(path);
        _posted.Add(path);
        return true;
    }

    string? HolderOf(string name)
    {
        var holders =
            from held in HeldLocks.On(new(PathOf(name)), kernel)
            let arguments = kernel.Read(Sys.Proc / held.Pid.ToString(CultureInfo.InvariantCulture) / "cmdline")?.Split('\0', StringSplitOptions.RemoveEmptyEntries)
            select $"{held.Pid} {(arguments is [var program, .. var rest] ? string.Join(' ', [Path.GetFileName(program), .. rest]) : "gpu-handoff")}";
        return string.Join(", ", holders.Distinct()) is { Length: > 0 } all ? all : null;
    }

    string PathOf(string name) => Path.Combine(folder, $"lock-{name}");

    /// <summary>Takes it for as long as this process lives.</summary>
    internal static (int Errno, string Reason, string? Text) Keep(string path, Dictionary<string, int> kept)
    {
        if (kept.ContainsKey(path))
            return (0, "", null);
        var file = Libc.Open(path, Libc.ReadWrite | Libc.CreateIt | Libc.CloseOnExec | Libc.NoLink, 0x180);
        if (file >= 0 && Flock(file, Libc.LockAlone | Libc.LockNow))
        {
            kept[path] = file;
            return (0, "", null);
        }
        var errno = Libc.LastError();
        if (file >= 0)
            _ = Libc.Close(file);
        return (errno, Errno.Say(errno), null);
    }

    static bool Flock(int file, int operation)
    {
        int result;
        while ((result = Libc.Flock(file, operation)) != 0 && Libc.LastError() == Spawned.Interrupted)
        {
            // A signal came in between: ask again.
        }
        return result == 0;
    }

    /// <summary>Gives it back at once.</summary>
    /// <remarks>
    /// Not by closing alone: a lock belongs to the open file, which a child has, too, between fork and exec, and that
    /// close-on-exec takes from it only then (flock(2)).
    /// </remarks>
    static void Free(int file)
    {
        _ = Flock(file, Libc.Unlock);
        _ = Libc.Close(file);
    }

    static LedgerRefused Refused(string path, int errno) => new($"{path} cannot be locked: {Errno.Say(errno)}", "look at /run: is it full, or read-only?");

    sealed class Held(int file, string path) : ILock
    {
        bool _open = true;

        /// <summary>From alone to shared, if nobody is quicker.</summary>
        /// <remarks>flock(2): changing the kind of a lock drops it first, so another may take it in between.</remarks>
        public bool Share()
        {
            if (Flock(file, Libc.LockShared | Libc.LockNow))
                return true;
            return Libc.LastError() is var errno and not Errno.TryAgain ? throw Refused(path, errno) : false;
        }

        public void Dispose()
        {
            if (_open)
                Free(file);
            _open = false;
        }
    }
}
