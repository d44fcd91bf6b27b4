using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Kernel;

/// <summary>
/// The only door to a machine: low, narrow and synchronous, because one run does one thing at a time. What may block
/// inside the kernel takes a budget and is made where the caller cannot be blocked with it; everything above this door,
/// the sysfs protocol included, is our code and runs against the simulator.
/// </summary>
/// <remarks>
/// A call that the kernel refuses throws <see cref="KernelRefused"/>. Silence has three kinds: a call that may hold a GPU and
/// does not return within its budget throws <see cref="KernelSilent"/>, and the kernel may still be at it; a program that does
/// not end is a <see cref="ProgramSilent"/>, a helper process that does not answer a <see cref="HelperSilent"/>.
/// </remarks>
public interface IKernel
{
    /// <summary>The text of a file without its last newline; null where there is no such file.</summary>
    string? Read(SysPath file);

    /// <summary>
    /// The same of a file whose reading may wait for a device's lock: an override on kernels that take the lock for it
    /// (drivers/base/driver.c:driver_set_override before 6.12.94), or what nvidia tells of a card.
    /// </summary>
    string? ReadSlow(SysPath file, TimeSpan budget);

    /// <summary>The first bytes of a file, at most so many; null where there is no such file.</summary>
    byte[]? ReadBytes(SysPath file, int count);

    /// <summary>The names in a folder in ordinal order; empty where there is no such folder.</summary>
    IReadOnlyList<string> List(SysPath folder);

    /// <summary>A symbolic link's target as it is written; null where there is no such link.</summary>
    string? Link(SysPath link);

    /// <summary>Whether there is a file, a folder or a link.</summary>
    bool Exists(SysPath path);

    /// <summary>Which file a path leads to, links followed; null where there is none.</summary>
    FileIdentity? IdentityOf(SysPath path);

    /// <summary>The character device behind a path, links followed; null where there is none.</summary>
    DeviceNode? NodeAt(SysPath path);

    /// <summary>The character devices that the entries of a folder lead to, under the entries' own paths.</summary>
    /// <remarks>For /proc/PID/fd: a busy machine has hundreds of thousands of entries there, and nearly none is a device.</remarks>
    IReadOnlyList<NamedNode> NodesIn(SysPath folder) =>
    [
        .. from name in List(folder)
           let node = NodeAt(folder / name)
           where node is not null
           select new NamedNode((folder / name).Text, node),
    ];

    /// <summary>Makes looks that only read, and do not depend on each other: several at a time, where that is quicker.</summary>
    /// <returns>Those that were given up, because the kernel did not answer.</returns>
    IReadOnlyList<int> Look(int count, Action<int> look)
    {
        for (var i = 0; i < count; i++)
            look(i);
        return [];
    }

    /// <summary>Writes <paramref name="text"/> with a single write(2), as sysfs wants it.</summary>
    void Write(SysPath file, string text, TimeSpan budget);

    /// <summary>Whether modprobe would find a module by this name or alias. Loads nothing.</summary>
    bool CanLoad(string module);

    /// <summary>modprobe MODULE PARAMETERS; no error where it is loaded already.</summary>
    void LoadModule(string module, IReadOnlyList<string> parameters, TimeSpan budget);

    /// <summary>delete_module(2) with O_NONBLOCK: EAGAIN where it is in use, with nothing changed.</summary>
    /// <remarks>kernel/module/main.c: the reference count is tested before anything is taken down.</remarks>
    void UnloadModule(string module, TimeSpan budget);

    /// <summary>mknod(2) with the node's owner and mode.</summary>
    void MakeNode(SysPath path, DeviceNode node);

    /// <summary>unlink(2) of a device node; no error where it is gone already.</summary>
    void RemoveNode(SysPath path);

    /// <summary>What there is at a path, a link itself and not what it leads to; null where there is nothing.</summary>
    FileStatus? StatusOf(SysPath path);

    /// <summary>mkdir(2), mode 0755; EEXIST where there is something.</summary>
    void MakeFolder(SysPath folder);

    /// <summary>rmdir(2): only an empty folder goes. No error where it is gone already.</summary>
    void RemoveFolder(SysPath folder);

    /// <summary>symlink(2), at once in the place of another link; EEXIST where there is anything else.</summary>
    void MakeLink(SysPath link, string target);

    /// <summary>unlink(2) of a symbolic link, and of nothing else. No error where it is gone already.</summary>
    void RemoveLink(SysPath link);

    /// <summary>Runs a program by its absolute path to its end: no shell, and nothing in its environment but PATH and LC_ALL=C.</summary>
    /// <remarks>
    /// One that takes longer than its budget is killed and counts as refused, as a <see cref="ProgramSilent"/>, whether SIGKILL
    /// has ended it or not: it says nothing of a GPU.
    /// </remarks>
    /// <param name="input">What it reads from its stdin; empty: it gets /dev/null.</param>
    /// <param name="environment">What it gets to know besides, as <c>NAME=VALUE</c>.</param>
    ProgramResult RunProgram(
        string program, IReadOnlyList<string> arguments, TimeSpan budget, string input = "", IReadOnlyList<string>? environment = null);

    /// <summary>
    /// What systemd says of the host as a whole (systemctl(1), is-system-running), without starting a program for it; null: it is
    /// not to be had so.
    /// </summary>
    string? SystemState() => null;

    /// <summary>
    /// Signals the process that began at that time (/proc/PID/stat, field 22); no error where it has ended, and nothing for
    /// a stranger that has its PID by now.
    /// </summary>
    void Signal(int pid, ulong startedAt, ProcessSignal signal);

    /// <summary>
    /// Says something to whoever listens at a Unix socket, and hears what comes back until that is all, or the other side hangs
    /// up. One that does not say all within the budget is refused: nothing of the kernel's hangs there.
    /// </summary>
    string Converse(SysPath socket, string text, Func<string, bool> isAll, TimeSpan budget);

    /// <summary>sched_setaffinity(2): where a thread may run from now on.</summary>
    void SetAffinity(int thread, IReadOnlyList<int> processors);

    void Pause(TimeSpan time);

    /// <summary>Waits until the process that began at that time has ended, or for so long.</summary>
    /// <returns>False: nothing was waited for, because it is gone, or the kernel would not have it (no file to spare).</returns>
    bool AwaitEnd(int pid, ulong startedAt, TimeSpan limit)
    {
        var (between, waited) = (TimeSpan.FromSeconds(2), false);
        for (var until = Uptime + limit; Uptime < until && ProcessStat.Lives(pid, startedAt, this); waited = true)
            Pause(until - Uptime is var left && left < between ? left : between);
        return waited;
    }

    /// <summary>Time since boot (CLOCK_BOOTTIME).</summary>
    TimeSpan Uptime { get; }
}
