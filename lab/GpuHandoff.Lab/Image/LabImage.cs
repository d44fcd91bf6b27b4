using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using GpuHandoff.Lab.Interop;

namespace GpuHandoff.Lab.Image;

/// <summary>The guest's disk, kernel and initrd; built once per recipe and kept.</summary>
public sealed record LabImage(string Disk, string Kernel, string Initrd, string About)
{
    static readonly TimeSpan BuildLimit = TimeSpan.FromMinutes(30);
    static readonly string[] Needs = ["setpriv", "setsid", "mmdebstrap", "mke2fs", "chroot"];

    /// <summary>The image of the recipe in this checkout, built now if nobody did before (some minutes).</summary>
    /// <exception cref="LabUnavailable">It is not there and cannot be built here.</exception>
    public static LabImage Get(Action<string>? say = null)
    {
        var folder = Path.Combine(LabPlaces.Cache, RecipeHash());
        if (At(folder) is { } there)
            return there;

        RequirePossible();

        using var _ = FileLock.Take(Path.Combine(LabPlaces.Cache, "build.lock"), BuildLimit, "the building of the lab's image");
        return At(folder) ?? Build(folder, say ?? (_ => { }));
    }

    /// <summary>Looks whether there is an image or could be one.</summary>
    /// <exception cref="LabUnavailable">The image is not there and cannot be built here.</exception>
    internal static void RequirePossible()
    {
        if (At(Path.Combine(LabPlaces.Cache, RecipeHash())) is not null)
            return;
        if (Libc.GetUid() != 0)
        {
            throw new LabUnavailable("the lab's image is not there, and only root can build it",
                "build it once: sudo dotnet run --project lab/GpuHandoff.Lab -- image (set GPU_HANDOFF_LAB_CACHE for both)");
        }
        Programs.Require(Needs);
    }

    /// <summary>
    /// A hash of all files of the recipe and of the modules that it compiles, names and modes included: whatever changes
    /// there makes a new image.
    /// </summary>
    public static string RecipeHash()
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var files = new[] { LabPlaces.Recipe, LabPlaces.Modules }
            .SelectMany(folder => Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories)).Order(StringComparer.Ordinal);
        foreach (var path in files)
        {
            var mayRun = File.GetUnixFileMode(path).HasFlag(UnixFileMode.UserExecute);
            var content = File.ReadAllBytes(path);
            hash.AppendData(Encoding.UTF8.GetBytes($"{Path.GetRelativePath(LabPlaces.Repository, path)} {mayRun} {content.Length}\n"));
            hash.AppendData(content);
        }
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    static LabImage? At(string folder)
    {
        var image = new LabImage(
            Path.Combine(folder, "disk.img"), Path.Combine(folder, "vmlinuz"), Path.Combine(folder, "initrd.img"),
            Path.Combine(folder, "about.txt"));
        // The folder gets its name only when all is in it.
        return Directory.Exists(folder) ? image : null;
    }

    static LabImage Build(string folder, Action<string> say)
    {
        // Next to its final place, so that the rename stays within one file system.
        var making = $"{folder}.making";
        Remove(making);
        Directory.CreateDirectory(making);
        var result = Path.Combine(making, "out");
        var log = new StringBuilder();

        // A session of its own, told to end when we do: else it would go on while another one begins.
        var start = new ProcessStartInfo("setpriv",
            ["--pdeathsig", "TERM", "--", "setsid", Path.Combine(LabPlaces.Recipe, "build"), result, Path.Combine(making, "work")])
        {
            RedirectStandardError = true,
            RedirectStandardOutput = true,
        };
        using var build = Process.Start(start) ?? throw new InvalidOperationException("the recipe did not start");
        void Hear(object sender, DataReceivedEventArgs line)
        {
            if (line.Data is null)
                return;
            lock (log)
                log.AppendLine(line.Data);
            say(line.Data);
        }
        build.OutputDataReceived += Hear;
        build.ErrorDataReceived += Hear;
        build.BeginOutputReadLine();
        build.BeginErrorReadLine();
        if (!build.WaitForExit(BuildLimit))
        {
            build.Kill(entireProcessTree: true);
            throw Failed($"the lab's image was not built within {BuildLimit.TotalMinutes:f0} min", log);
        }
        build.WaitForExit();
        if (build.ExitCode != 0)
            throw Failed($"the lab's image cannot be built (exit code {build.ExitCode})", log);

        Directory.Move(result, folder);
        Remove(making);
        return At(folder)!;
    }

    static LabUnavailable Failed(string what, StringBuilder log)
    {
        string[] lines;
        lock (log)
            lines = log.ToString().Split('\n');
        return new($"{what}:\n{string.Join('\n', lines.TakeLast(15))}",
            "run it alone to see it all: dotnet run --project lab/GpuHandoff.Lab -- image");
    }

    // rm, not Directory.Delete: a root file system has links and device nodes, and rm stays on the one file system.
    static void Remove(string folder)
    {
        if (!Directory.Exists(folder))
            return;
        using var remove = Process.Start("rm", ["-rf", "--one-file-system", folder]);
        remove.WaitForExit();
    }
}
