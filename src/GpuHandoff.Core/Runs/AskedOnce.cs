using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Runs;

/// <summary>
/// The machine for one run, in which a program that was silent once is not asked again: its daemon does not answer, and every
/// further question would cost its whole budget.
/// </summary>
/// <remarks>
/// A job (a service to start, a container to stop) that takes longer than <see cref="Limits.Users"/> says nothing of its
/// manager; a question that is not answered does, and a program that SIGKILL does not end.
/// </remarks>
sealed class AskedOnce(IKernel kernel, Limits limits) : IKernel
{
    readonly Dictionary<string, ProgramSilent> _silent = new(StringComparer.Ordinal);

    public ProgramResult RunProgram(
        string program, IReadOnlyList<string> arguments, TimeSpan budget, string input = "", IReadOnlyList<string>? environment = null)
    {
        if (_silent.TryGetValue(Manager(program), out var earlier))
            throw new ProgramSilent($"{program} {string.Join(' ', arguments)}", earlier);
        try
        {
            return kernel.RunProgram(program, arguments, budget, input, environment);
        }
        catch (ProgramSilent silent) when (!silent.IsOver || IsQuestion(budget))
        {
            // setpriv only stands in front of others' programs.
            if (program != Programs.SetPriv)
                _silent[Manager(program)] = silent;
            throw;
        }
    }

    bool IsQuestion(TimeSpan budget) => budget < limits.Users;

    static string Manager(string program) => program == Programs.SystemdRun ? Programs.Systemctl : program;

    public string? Read(SysPath file) => kernel.Read(file);

    public string? ReadSlow(SysPath file, TimeSpan budget) => kernel.ReadSlow(file, budget);

    public byte[]? ReadBytes(SysPath file, int count) => kernel.ReadBytes(file, count);

    public IReadOnlyList<string> List(SysPath folder) => kernel.List(folder);

    public string? Link(SysPath link) => kernel.Link(link);

    public bool Exists(SysPath path) => kernel.Exists(path);

    public FileIdentity? IdentityOf(SysPath path) => kernel.IdentityOf(path);

    public DeviceNode? NodeAt(SysPath path) => kernel.NodeAt(path);

    public IReadOnlyList<OpenDevice> OpenIn(SysPath descriptors, Func<uint, uint, bool> wanted, Looking looking) =>
        kernel.OpenIn(descriptors, wanted, looking);

    public bool IsSameFile(SysPath descriptor, SysPath other) => kernel.IsSameFile(descriptor, other);

    public bool ReadLines(SysPath file, OfLine line, Looking looking) => kernel.ReadLines(file, line, looking);

    public IReadOnlyList<int> Look(int count, Action<int, Looking> look) => kernel.Look(count, look);

    public void Write(SysPath file, string text, TimeSpan budget, LastLook? look = null) => kernel.Write(file, text, budget, look);

    public bool CanLoad(string module) => kernel.CanLoad(module);

    public void LoadModule(string module, IReadOnlyList<string> parameters, TimeSpan budget) => kernel.LoadModule(module, parameters, budget);

    public void UnloadModule(string module, TimeSpan budget) => kernel.UnloadModule(module, budget);

    public void MakeNode(SysPath path, DeviceNode node) => kernel.MakeNode(path, node);

    public void RemoveNode(SysPath path) => kernel.RemoveNode(path);

    public FileStatus? StatusOf(SysPath path) => kernel.StatusOf(path);

    public void MakeFolder(SysPath folder) => kernel.MakeFolder(folder);

    public void RemoveFolder(SysPath folder) => kernel.RemoveFolder(folder);

    public void MakeLink(SysPath link, string target) => kernel.MakeLink(link, target);

    public void RemoveLink(SysPath link) => kernel.RemoveLink(link);

    public string? SystemState() => kernel.SystemState();

    public void Signal(int pid, ulong startedAt, ProcessSignal signal) => kernel.Signal(pid, startedAt, signal);

    public string Converse(SysPath socket, string text, Func<string, bool> isAll, TimeSpan budget) => kernel.Converse(socket, text, isAll, budget);

    public void SetAffinity(int thread, IReadOnlyList<int> processors) => kernel.SetAffinity(thread, processors);

    public void Pause(TimeSpan time) => kernel.Pause(time);

    public bool AwaitEnd(int pid, ulong startedAt, TimeSpan limit) => kernel.AwaitEnd(pid, startedAt, limit);

    public TimeSpan Uptime => kernel.Uptime;
}
