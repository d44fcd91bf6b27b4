namespace GpuHandoff.Lab;

/// <summary>Where the lab keeps its things.</summary>
public static class LabPlaces
{
    /// <summary>The checkout: the folder with the solution, upwards from the program or from the current folder.</summary>
    public static string Repository { get; } = Find(AppContext.BaseDirectory) ?? Find(Directory.GetCurrentDirectory())
        ?? throw new LabUnavailable("this program is outside its checkout", "run it from within the repository");

    public static string Recipe { get; } = Path.Combine(Repository, "lab", "image");

    /// <summary>The sources of the lab's own kernel modules, which the recipe compiles.</summary>
    public static string Modules { get; } = Path.Combine(Repository, "lab", "modules");

    /// <summary>Images are outside the checkout: they are big, and the same for every worktree with the same recipe.</summary>
    public static string Cache { get; } = Variable("GPU_HANDOFF_LAB_CACHE")
        ?? Path.Combine(
            Variable("XDG_CACHE_HOME") ?? Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache"),
            "gpu-handoff", "lab");

    /// <summary>The evidence of one case: console, kernel log, traffic of the virtual GPUs.</summary>
    public static string Evidence(string @case) => Path.Combine(Repository, "artifacts", "lab", @case);

    internal static string? Variable(string name) =>
        Environment.GetEnvironmentVariable(name) is { Length: > 0 } value ? value : null;

    static string? Find(string from)
    {
        for (var folder = new DirectoryInfo(from); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "GpuHandoff.slnx")))
                return folder.FullName;
        }
        return null;
    }
}
