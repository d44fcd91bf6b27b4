namespace GpuHandoff.Simulation;

/// <summary>Walks a tree of entries as the kernel walks a path (fs/namei.c:path_lookupat), links included.</summary>
sealed class Tree(Folder root)
{
    // fs/namei.c: MAXSYMLINKS
    const int MostLinks = 40;

    public Entry? Find(string path, bool follow = true)
    {
        var todo = new Stack<string>(Parts(path).Reverse());
        var here = new List<Folder> { root };
        var links = 0;
        Entry found = root;
        while (todo.TryPop(out var name))
        {
            if (found is not Folder folder)
                return null;
            if (name == "..")
            {
                if (here.Count > 1)
                    here.RemoveAt(here.Count - 1);
                found = here[^1];
                continue;
            }
            if (folder.Find(name) is not { } next)
                return null;
            if (next is LinkTo link && (follow || todo.Count > 0))
            {
                if (++links > MostLinks)
                    return null;
                if (link.Target.StartsWith('/'))
                    here.RemoveRange(1, here.Count - 1);
                foreach (var part in Parts(link.Target).Reverse())
                    todo.Push(part);
                found = here[^1];
                continue;
            }
            found = next;
            if (next is Folder deeper)
                here.Add(deeper);
        }
        return found;
    }

    static IEnumerable<string> Parts(string path) =>
        path.Split('/', StringSplitOptions.RemoveEmptyEntries).Where(part => part != ".");
}
