namespace GpuHandoff.Lab;

/// <summary>The Debian programs that the lab stands on.</summary>
static class Programs
{
    public static void Require(params string[] names)
    {
        var missing = names.Where(name => Find(name) is null).ToList();
        if (missing.Count != 0)
            throw new LabUnavailable($"not installed: {string.Join(", ", missing)}", "run lab/install-needs");
    }

    static string? Find(string name) =>
        $"{Environment.GetEnvironmentVariable("PATH")}:/usr/sbin:/sbin".Split(':', StringSplitOptions.RemoveEmptyEntries)
            .Select(folder => Path.Combine(folder, name)).FirstOrDefault(File.Exists);
}
